"""Names of the head in EMANet's release."""

from pyrseg_jax.models.weights.head import Head
from pyrseg_jax.models.weights.heads import CLASSIFIER, CONTEXT

EMANET = Head(
    "EMANet, its release",
    "emau.conv1.weight",
    {
        f"{CONTEXT}/reduce": ("fc0.conv", "fc0.bn"),
        f"{CONTEXT}/unit/project": ("emau.conv1", None),
        f"{CONTEXT}/unit/out": ("emau.conv2.0", "emau.conv2.1"),
        f"{CONTEXT}/smooth": ("fc1.0.conv", "fc1.0.bn"),
        CLASSIFIER: ("fc2", None),
    },
    arrays={f"{CONTEXT}/unit/bases": "emau.mu"},
    trained={"dilation": "contracted", "multi_grid": (2, 8, 16)},
)
