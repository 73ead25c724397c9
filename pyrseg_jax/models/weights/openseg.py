"""Names of OCR's head in openseg's release, on ResNets. `heads.py` has those on HRNets."""

from pyrseg_jax.models.weights.head import Head
from pyrseg_jax.models.weights.heads import AUXILIARY, CLASSIFIER, CONTEXT

_BLOCK = "spatial_ocr_head.object_context_block"
# Each convolution has a bias. A normalization and a ReLU follow as one module; InPlaceABN has no index of the normalization.
_LAYERS = {
    f"{CONTEXT}/reduce": ("conv_3x3.0", "conv_3x3.1.0"),
    f"{CONTEXT}/query_1": (f"{_BLOCK}.f_pixel.0", f"{_BLOCK}.f_pixel.1.0"),
    f"{CONTEXT}/query_2": (f"{_BLOCK}.f_pixel.2", f"{_BLOCK}.f_pixel.3.0"),
    f"{CONTEXT}/key_1": (f"{_BLOCK}.f_object.0", f"{_BLOCK}.f_object.1.0"),
    f"{CONTEXT}/key_2": (f"{_BLOCK}.f_object.2", f"{_BLOCK}.f_object.3.0"),
    f"{CONTEXT}/value_1": (f"{_BLOCK}.f_down.0", f"{_BLOCK}.f_down.1.0"),
    f"{CONTEXT}/out": (f"{_BLOCK}.f_up.0", f"{_BLOCK}.f_up.1.0"),
    f"{CONTEXT}/merge": ("spatial_ocr_head.conv_bn_dropout.0", "spatial_ocr_head.conv_bn_dropout.1.0"),
    f"{AUXILIARY}/project_1": ("dsn_head.0", "dsn_head.1.0"),
}

OPENSEG = Head(
    "OCR, openseg",
    "conv_3x3.0.weight",
    _LAYERS | {CLASSIFIER: ("head", None), f"{AUXILIARY}/classify_1": ("dsn_head.3", None)},
    frozenset(convolution for convolution, _ in _LAYERS.values()),
    trained={"dilation": "contracted"},
    in_place="leaky_relu",
)
