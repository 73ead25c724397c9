"""Names of the layers in SegFormer's head: NVIDIA's release, transformers of both generations, and mmsegmentation's own variant."""

from collections.abc import Sequence

from pyrseg_jax.models.weights.head import Head
from pyrseg_jax.models.weights.heads import CLASSIFIER, CONTEXT

HEAD = "decode_head"


def _all_mlp(source: str, linear: Sequence[str], fuse: tuple[str, str], classifier: str) -> Head:
    """Return the head of the publication.

    Args:
      source: the release, in words.
      linear: names of the dense layers of the four stages, fine → coarse.
      fuse: names of the convolution that joins them, and of its normalization.
      classifier: name of the classifier.
    """
    names: dict[str, tuple[str, str | None]] = {
        f"{CONTEXT}/linear_{i}": (f"{HEAD}.{name}", None) for i, name in enumerate(linear, 1)
    }
    names[f"{CONTEXT}/merge"] = (f"{HEAD}.{fuse[0]}", f"{HEAD}.{fuse[1]}")
    names[CLASSIFIER] = (f"{HEAD}.{classifier}", None)
    return Head(source, f"{HEAD}.{linear[0]}.weight", names, trained={"resize": "half_pixel"})


NVIDIA = _all_mlp(
    "SegFormer, NVIDIA",
    [f"linear_c{i}.proj" for i in (1, 2, 3, 4)],
    ("linear_fuse.conv", "linear_fuse.bn"),
    "linear_pred",
)
TRANSFORMERS = _all_mlp(
    "SegFormer, transformers", [f"linear_c.{i}.proj" for i in range(4)], ("linear_fuse", "batch_norm"), "classifier"
)
TRANSFORMERS_5 = _all_mlp(
    "SegFormer, transformers 5",
    [f"linear_projections.{i}.proj" for i in range(4)],
    ("linear_fuse", "batch_norm"),
    "classifier",
)
MMSEGMENTATION = Head(
    "SegFormer, mmsegmentation",
    f"{HEAD}.fusion_conv.conv.weight",
    {f"{CONTEXT}/linear_{i + 1}": (f"{HEAD}.convs.{i}.conv", f"{HEAD}.convs.{i}.bn") for i in range(4)}
    | {
        f"{CONTEXT}/merge": (f"{HEAD}.fusion_conv.conv", f"{HEAD}.fusion_conv.bn"),
        CLASSIFIER: (f"{HEAD}.conv_seg", None),
    },
    trained={"resize": "half_pixel"},
)
