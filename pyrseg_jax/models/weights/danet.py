"""Names of the head in DANet's release, whose ResNet has PyTorch-Encoding's names."""

from pyrseg_jax.models.weights.head import Head
from pyrseg_jax.models.weights.heads import CLASSIFIER, CONTEXT

_LAYERS = {
    "position_reduce": "conv5a",
    "position_smooth": "conv51",
    "channel_reduce": "conv5c",
    "channel_smooth": "conv52",
}
_PLAIN = {
    "position/query": "sa.query_conv",
    "position/key": "sa.key_conv",
    "position/value": "sa.value_conv",
    "position_classify": "conv6.1",
    "channel_classify": "conv7.1",
}

# The release has no auxiliary classifier on C4.
DANET = Head(
    "DANet, its release",
    "head.conv5a.0.weight",
    {f"{CONTEXT}/{ours}": (f"head.{name}.0", f"head.{name}.1") for ours, name in _LAYERS.items()}
    | {f"{CONTEXT}/{ours}": (f"head.{name}", None) for ours, name in _PLAIN.items()}
    | {CLASSIFIER: ("head.conv8.1", None)},
    arrays={f"{CONTEXT}/position/gamma": "head.sa.gamma", f"{CONTEXT}/channel/gamma": "head.sc.gamma"},
    trained={"dilation": "contracted", "multi_grid": (4, 8, 16)},
)
