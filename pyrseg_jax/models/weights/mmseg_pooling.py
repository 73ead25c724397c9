"""Names of mmsegmentation's heads of convolution and pooling on ResNets: FCN, PSPNet, UperNet, DeepLabV3+ and PSANet."""

from collections.abc import Mapping

from pyrseg_jax.models.weights.heads import AUXILIARY, CLASSIFIER, CONTEXT
from pyrseg_jax.models.weights.importer import Head

HEAD = "decode_head"
# All of mmsegmentation's ResNets of stride 8 and 16 have this rule.
CONTRACTED = {"dilation": "contracted"}
AUXILIARY_NAMES = {
    f"{AUXILIARY}/project_1": ("auxiliary_head.convs.0.conv", "auxiliary_head.convs.0.bn"),
    f"{AUXILIARY}/classify_1": ("auxiliary_head.conv_seg", None),
}


def _names(layers: Mapping[str, str]) -> dict[str, tuple[str, str | None]]:
    """Return the published names of a head.

    Args:
      layers: our layer of the context module → mmsegmentation's layer of convolution and normalization.
    """
    named = {f"{CONTEXT}/{ours}": (f"{HEAD}.{name}.conv", f"{HEAD}.{name}.bn") for ours, name in layers.items()}
    return named | {CLASSIFIER: (f"{HEAD}.conv_seg", None)} | AUXILIARY_NAMES


MMSEG_POOLING = (
    Head(
        "FCN, mmsegmentation",
        f"{HEAD}.conv_cat.conv.weight",
        _names({"conv_1": "convs.0", "conv_2": "convs.1", "merge": "conv_cat"}),
        trained=CONTRACTED,
    ),
)
