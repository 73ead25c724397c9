"""Published names of the layers in heads that were trained on an HRNet: HRNet's own and OCR's, one per release.

Only releases whose layers we have are here.
"""

from collections.abc import Iterable, Mapping

from pyrseg_jax.models.weights.head import Head, Path
from pyrseg_jax.models.weights.image_input import BGR_BY_RGB_STATISTICS

Names = Mapping[str, tuple[str, str | None]]  # see `importer.Head`

# Where our segmenter keeps these parts.
CONTEXT = "context/context"
CLASSIFIER = "semantic_head/classify_4"
AUXILIARY = "auxiliary_head"


def _ocr(reduce: str) -> Names:
    """Return the names of the official release and of openseg, which differ in that of the first layer."""
    block = "ocr_distri_head.object_context_block"
    names = {
        "reduce": (f"{reduce}.0", f"{reduce}.1.0"),
        "query_1": (f"{block}.f_pixel.0", f"{block}.f_pixel.1.0"),
        "query_2": (f"{block}.f_pixel.2", f"{block}.f_pixel.3.0"),
        "key_1": (f"{block}.f_object.0", f"{block}.f_object.1.0"),
        "key_2": (f"{block}.f_object.2", f"{block}.f_object.3.0"),
        "value_1": (f"{block}.f_down.0", f"{block}.f_down.1.0"),
        "out": (f"{block}.f_up.0", f"{block}.f_up.1.0"),
        "merge": ("ocr_distri_head.conv_bn_dropout.0", "ocr_distri_head.conv_bn_dropout.1.0"),
    }
    named: dict[str, tuple[str, str | None]] = {f"{CONTEXT}/{ours}": theirs for ours, theirs in names.items()}
    named[CLASSIFIER] = ("cls_head", None)
    named[f"{AUXILIARY}/project_1"] = ("aux_head.0", "aux_head.1.0")
    named[f"{AUXILIARY}/classify_1"] = ("aux_head.2", None)
    return named


def _without_auxiliary(names: Names) -> Names:
    return {ours: theirs for ours, theirs in names.items() if not ours.startswith(AUXILIARY)}


def mmsegmentation_ocr() -> Names:
    """Return the names of mmsegmentation's OCR, which are the same on ResNets."""
    head, block = "decode_head.1", "decode_head.1.object_context_block"
    layers = {
        "reduce": f"{head}.bottleneck",
        "query_1": f"{block}.query_project.0",
        "query_2": f"{block}.query_project.1",
        "key_1": f"{block}.key_project.0",
        "key_2": f"{block}.key_project.1",
        "value_1": f"{block}.value_project",
        "out": f"{block}.out_project",
        "merge": f"{block}.bottleneck",
    }
    return {f"{CONTEXT}/{ours}": (f"{theirs}.conv", f"{theirs}.bn") for ours, theirs in layers.items()} | {
        CLASSIFIER: (f"{head}.conv_seg", None),
        f"{AUXILIARY}/project_1": ("decode_head.0.convs.0.conv", "decode_head.0.convs.0.bn"),
        f"{AUXILIARY}/classify_1": ("decode_head.0.conv_seg", None),
    }


PROJECTION = "semantic_head/project_4"
# The first two are the official ones, see `official_head`. The auxiliary classifier of openseg's OCR begins with a 3×3 convolution,
# which only the context `ocr_openseg` has. For others, an import leaves it out.
HEADS = (
    Head(
        "HRNet, official segmentation release",
        "last_layer.3.weight",
        {PROJECTION: ("last_layer.0", "last_layer.1"), CLASSIFIER: ("last_layer.3", None)},
        frozenset({"last_layer.0"}),
        in_place="none",
    ),
    Head(
        "HRNet + OCR, official release",
        "conv3x3_ocr.0.weight",
        _ocr("conv3x3_ocr"),
        frozenset({"conv3x3_ocr.0", "aux_head.0"}),
        in_place="none",
    ),
    Head(
        "HRNet + OCR, openseg",
        "conv3x3.0.weight",
        _ocr("conv3x3"),
        frozenset({"conv3x3.0", "aux_head.0"}),
        input=BGR_BY_RGB_STATISTICS,
        in_place="leaky_relu",
    ),
    Head(
        "HRNet + OCR, openseg",
        "conv3x3.0.weight",
        _without_auxiliary(_ocr("conv3x3")),
        frozenset({"conv3x3.0"}),
        input=BGR_BY_RGB_STATISTICS,
        in_place="leaky_relu",
    ),
    Head("HRNet + OCR, mmsegmentation", "decode_head.1.bottleneck.conv.weight", mmsegmentation_ocr()),
    Head(
        "HRNet, mmsegmentation",
        "decode_head.convs.0.conv.weight",
        {
            PROJECTION: ("decode_head.convs.0.conv", "decode_head.convs.0.bn"),
            CLASSIFIER: ("decode_head.conv_seg", None),
        },
    ),
)


def official_head(paths: Iterable[Path]) -> Head:
    """Return the official release's head of a segmenter with these arrays: OCR's if there is an auxiliary classifier."""
    return HEADS[1] if any(path[1] == "auxiliary_head" for path in paths) else HEADS[0]
