"""Names of mmsegmentation's heads of convolution and pooling on ResNets: FCN, PSPNet, UperNet, DeepLabV3+ and PSANet."""

from collections.abc import Mapping

from pyrseg_jax.models.weights.head import Head
from pyrseg_jax.models.weights.heads import AUXILIARY, CLASSIFIER, CONTEXT

HEAD = "decode_head"
# All of mmsegmentation's ResNets of stride 8 and 16 have this rule.
CONTRACTED = {"dilation": "contracted"}
AUXILIARY_NAMES: dict[str, tuple[str, str | None]] = {
    f"{AUXILIARY}/project_1": ("auxiliary_head.convs.0.conv", "auxiliary_head.convs.0.bn"),
    f"{AUXILIARY}/classify_1": ("auxiliary_head.conv_seg", None),
}


def _names(layers: Mapping[str, str]) -> dict[str, tuple[str, str | None]]:
    """Return the published names of a head.

    Args:
      layers: our layer of the context module → mmsegmentation's layer of convolution and normalization.
    """
    named: dict[str, tuple[str, str | None]] = {
        f"{CONTEXT}/{ours}": (f"{HEAD}.{name}.conv", f"{HEAD}.{name}.bn") for ours, name in layers.items()
    }
    return named | {CLASSIFIER: (f"{HEAD}.conv_seg", None)} | AUXILIARY_NAMES


_PYRAMID = {f"pool_{bins}": f"psp_modules.{i}.1" for i, bins in enumerate((1, 2, 3, 6))}
_UPERNET = (
    _PYRAMID
    | {"top": "bottleneck", "merge": "fpn_bottleneck"}
    | {f"lateral_{i + 2}": f"lateral_convs.{i}" for i in range(3)}
    | {f"smooth_{i + 2}": f"fpn_convs.{i}" for i in range(3)}
)
_DEEPLAB = {"pool": "image_pool.1", "rate_0": "aspp_modules.0", "join": "bottleneck", "detail": "c1_bottleneck"} | {
    f"{ours}/{part}": f"{name}.{part}_conv"
    for ours, name in (
        *((f"rate_{i}", f"aspp_modules.{i}") for i in (1, 2, 3)),
        *((f"refine_{i + 1}", f"sep_bottleneck.{i}") for i in (0, 1)),
    )
    for part in ("depthwise", "pointwise")
}
_PSANET = {
    "collect_reduce": "reduce",
    "collect_hidden": "attention.0",
    "distribute_reduce": "reduce_p",
    "distribute_hidden": "attention_p.0",
    "join": "proj",
    "merge": "bottleneck",
}
_PSANET_SCORES: dict[str, tuple[str, str | None]] = {
    f"{CONTEXT}/collect_scores": (f"{HEAD}.attention.1", None),
    f"{CONTEXT}/distribute_scores": (f"{HEAD}.attention_p.1", None),
}
# Heads that begin as FCN does.
_BEYOND_FCN = ("nl_block.g.conv", "dnl_block.g.conv", "gc_block.conv_mask", "cca.query_conv")

MMSEG_POOLING = (
    Head(
        "FCN, mmsegmentation",
        f"{HEAD}.convs.1.conv.weight",
        _names({"conv_1": "convs.0", "conv_2": "convs.1", "merge": "conv_cat"}),
        trained=CONTRACTED,
        absent=frozenset(f"{HEAD}.{name}.weight" for name in _BEYOND_FCN),
    ),
    Head(
        "UperNet, mmsegmentation",
        f"{HEAD}.fpn_bottleneck.conv.weight",
        _names(_UPERNET),
        trained={"output_stride": 32, "resize": "half_pixel"},
    ),
    Head(
        "PSPNet, mmsegmentation",
        f"{HEAD}.psp_modules.0.1.conv.weight",
        _names({**_PYRAMID, "merge": "bottleneck"}),
        trained=CONTRACTED | {"resize": "half_pixel"},
        absent=frozenset({f"{HEAD}.fpn_bottleneck.conv.weight"}),
    ),
    Head(
        "DeepLabV3+, mmsegmentation",
        f"{HEAD}.sep_bottleneck.0.depthwise_conv.conv.weight",
        _names(_DEEPLAB),
        trained=CONTRACTED | {"resize": "half_pixel"},
    ),
    Head(
        "PSANet, mmsegmentation",
        f"{HEAD}.reduce_p.conv.weight",
        _names(_PSANET) | _PSANET_SCORES,
        trained=CONTRACTED,
    ),
)
