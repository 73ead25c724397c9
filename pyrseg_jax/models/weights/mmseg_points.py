"""Published names of the layers in mmsegmentation's PointRend: feature pyramid, coarse head and point head."""

from pyrseg_jax.models.weights.head import Head

_CONTEXT, _POINTS = "context/context", "refiner/head"
_SCALES = {
    1: (0,),
    2: (0,),
    3: (0, 2),
    4: (0, 2, 4),
}  # indices of the convolutions of each level; enlargements stand between


def _names() -> dict[str, tuple[str, str | None]]:
    names: dict[str, tuple[str, str | None]] = {}
    for level in range(1, 5):
        names[f"{_CONTEXT}/lateral_{level}"] = (f"neck.lateral_convs.{level - 1}.conv", None)
        names[f"{_CONTEXT}/smooth_{level}"] = (f"neck.fpn_convs.{level - 1}.conv", None)
        for number, index in enumerate(_SCALES[level], 1):
            layer = f"decode_head.0.scale_heads.{level - 1}.{index}"
            names[f"{_CONTEXT}/scale_{level}_{number}"] = (f"{layer}.conv", f"{layer}.bn")
    names["semantic_head/classify_4"] = ("decode_head.0.conv_seg", None)
    for number in range(1, 4):
        names[f"{_POINTS}/hidden_{number}"] = (f"decode_head.1.fcs.{number - 1}.conv", None)
    names[f"{_POINTS}/classify"] = ("decode_head.1.fc_seg", None)
    return names


MMSEG_POINTS = (
    Head(
        "PointRend, mmsegmentation",
        "decode_head.1.fc_seg.weight",
        _names(),
        trained={"output_stride": 32},
    ),
)
