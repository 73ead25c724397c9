"""Names of the heads of EncNet (mmsegmentation) and CPNet (ContextPrior, which is built on mmsegmentation) on ResNets."""

from pyrseg_jax.models.weights.head import Head
from pyrseg_jax.models.weights.heads import CLASSIFIER, CONTEXT
from pyrseg_jax.models.weights.mmseg_pooling import AUXILIARY_NAMES, CONTRACTED, HEAD

_BOTH = AUXILIARY_NAMES | {CLASSIFIER: (f"{HEAD}.conv_seg", None)}


def _pair(name: str) -> tuple[str, str | None]:
    """Return the names of a convolution with its normalization."""
    return f"{HEAD}.{name}.conv", f"{HEAD}.{name}.bn"


_ENCODING = f"{CONTEXT}/encoding"
_AGGREGATION = f"{CONTEXT}/aggregation"
MMSEG_ENCODING = (
    Head(
        "EncNet, mmsegmentation",
        f"{HEAD}.enc_module.encoding.0.codewords",
        {
            f"{CONTEXT}/reduce": _pair("bottleneck"),
            f"{_ENCODING}/project": _pair("enc_module.encoding_project"),
            f"{_ENCODING}/norm": (f"{HEAD}.enc_module.encoding.1", None),
            f"{_ENCODING}/gate": (f"{HEAD}.enc_module.fc.0", None),
            f"{_ENCODING}/presence": (f"{HEAD}.se_layer", None),
        }
        | _BOTH,
        arrays={
            f"{_ENCODING}/codewords": f"{HEAD}.enc_module.encoding.0.codewords",
            f"{_ENCODING}/factors": f"{HEAD}.enc_module.encoding.0.scale",
        },
        trained=CONTRACTED,
    ),
    Head(
        "CPNet, ContextPrior",
        f"{HEAD}.prior_conv.conv.weight",
        {
            f"{_AGGREGATION}/reduce": _pair("aggregation.reduce_conv"),
            f"{_AGGREGATION}/first_1": (f"{HEAD}.aggregation.t1.conv", None),
            f"{_AGGREGATION}/first_2": (f"{HEAD}.aggregation.t2.conv", None),
            f"{_AGGREGATION}/second_1": (f"{HEAD}.aggregation.p1.conv", None),
            f"{_AGGREGATION}/second_2": (f"{HEAD}.aggregation.p2.conv", None),
            f"{_AGGREGATION}/norm": (f"{HEAD}.aggregation.norm", None),
            f"{CONTEXT}/prior": _pair("prior_conv"),
            f"{CONTEXT}/intra": _pair("intra_conv"),
            f"{CONTEXT}/inter": _pair("inter_conv"),
            f"{CONTEXT}/merge": _pair("bottleneck"),
        }
        | _BOTH,
        trained=CONTRACTED,
    ),
)
