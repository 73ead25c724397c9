"""Names of the head in CCNet's release, whose ResNet has CSAIL's names.

Differs: the release's normalizations outside of the ResNet (InPlaceABN) are followed by a leaky ReLU with a slope of 0.01, and ours
  by a ReLU; an import says so. Its auxiliary classifier on C4 has other sizes than ours and is left out.
"""

from pyrseg_jax.models.weights.head import Head
from pyrseg_jax.models.weights.heads import CLASSIFIER, CONTEXT
from pyrseg_jax.models.weights.image_input import BGR_255_CCNET

CCNET_AUXILIARY = ("dsn.",)
CCNET = Head(
    "CCNet, its release",
    "head.conva.0.weight",
    {
        f"{CONTEXT}/{ours}": (f"head.{name}.0", f"head.{name}.1")
        for ours, name in {"reduce": "conva", "smooth": "convb", "merge": "bottleneck"}.items()
    }
    | {f"{CONTEXT}/criss_cross/{name}": (f"head.cca.{name}_conv", None) for name in ("query", "key", "value")}
    | {CLASSIFIER: ("head.bottleneck.3", None)},
    arrays={f"{CONTEXT}/criss_cross/gamma": "head.cca.gamma"},
    trained={"dilation": "plain"},
    input=BGR_255_CCNET,
    in_place="leaky_relu",
)
