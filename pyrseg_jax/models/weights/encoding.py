"""Names of the heads in PyTorch-Encoding's networks on ResNets: CFNet, EncNet and FCN."""

from pyrseg_jax.models.weights.head import Head
from pyrseg_jax.models.weights.heads import AUXILIARY, CLASSIFIER, CONTEXT

_TRAINED = {"dilation": "contracted", "stem": "deep"}
_AUXILIARY: dict[str, tuple[str, str | None]] = {
    f"{AUXILIARY}/project_1": ("auxlayer.conv5.0", "auxlayer.conv5.1"),
    f"{AUXILIARY}/classify_1": ("auxlayer.conv5.4", None),
}
_ENCODING = f"{CONTEXT}/encoding"
_MODULE = "head.encmodule"
# What EncNet and CFNet share.
_NAMES: dict[str, tuple[str, str | None]] = {
    f"{CONTEXT}/reduce": ("head.conv5.0", "head.conv5.1"),
    f"{_ENCODING}/project": (f"{_MODULE}.encoding.0", f"{_MODULE}.encoding.1"),
    f"{_ENCODING}/norm": (f"{_MODULE}.encoding.4", None),
    f"{_ENCODING}/gate": (f"{_MODULE}.fc.0", None),
    CLASSIFIER: ("head.conv6.1", None),
} | _AUXILIARY
_ARRAYS = {
    f"{_ENCODING}/codewords": f"{_MODULE}.encoding.3.codewords",
    f"{_ENCODING}/factors": f"{_MODULE}.encoding.3.scale",
}
_ATTENTION = f"{CONTEXT}/attention"
_CFNET_MARKER = "head.atten.conv_qs.weight"
PYTORCH_ENCODING = (
    Head(
        "CFNet, PyTorch-Encoding",
        _CFNET_MARKER,
        {
            f"{CONTEXT}/global": ("head.atten_layers.0.gap.1", "head.atten_layers.0.gap.2"),
            f"{_ATTENTION}/query": ("head.atten.conv_qs", None),
            f"{_ATTENTION}/value": ("head.atten.conv_vs", None),
            f"{_ATTENTION}/out": ("head.atten.conv", "head.atten.norm_layer"),
        }
        | _NAMES,
        arrays=_ARRAYS,
        trained=_TRAINED,
        # The keys are the queries' layer, and the whole attention is saved again as a part of what runs beside the global mean.
        repeated=("head.atten.conv_ks.", "head.atten_layers.1."),
    ),
    Head(
        "EncNet, PyTorch-Encoding",
        f"{_MODULE}.encoding.3.codewords",
        _NAMES | {f"{_ENCODING}/presence": (f"{_MODULE}.selayer", None)},
        arrays=_ARRAYS,
        trained=_TRAINED,
        absent=frozenset({_CFNET_MARKER}),  # CFNet contains the encoding, too
    ),
    Head(
        "FCN, PyTorch-Encoding",
        "head.conv5.4.weight",
        {f"{CONTEXT}/reduce": ("head.conv5.0", "head.conv5.1"), CLASSIFIER: ("head.conv5.4", None)} | _AUXILIARY,
        trained=_TRAINED,
    ),
)
