"""Names of UperNet's layers in CSAIL's release on ResNets, which keeps them in a file of their own, beside that of the encoder."""

from pyrseg_jax.models.weights.head import Head
from pyrseg_jax.models.weights.heads import CLASSIFIER, CONTEXT

CSAIL = (
    Head(
        "UperNet, CSAIL",
        "ppm_last_conv.0.weight",
        {f"{CONTEXT}/pool_{bins}": (f"ppm_conv.{i}.0", f"ppm_conv.{i}.1") for i, bins in enumerate((1, 2, 3, 6))}
        | {f"{CONTEXT}/lateral_{i + 2}": (f"fpn_in.{i}.0", f"fpn_in.{i}.1") for i in range(3)}
        | {f"{CONTEXT}/smooth_{i + 2}": (f"fpn_out.{i}.0.0", f"fpn_out.{i}.0.1") for i in range(3)}
        | {
            f"{CONTEXT}/top": ("ppm_last_conv.0", "ppm_last_conv.1"),
            f"{CONTEXT}/merge": ("conv_last.0.0", "conv_last.0.1"),
            CLASSIFIER: ("conv_last.1", None),
        },
        trained={"output_stride": 32, "resize": "half_pixel"},
    ),
)
