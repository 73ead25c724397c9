"""Names of semseg's heads on ResNets: PSPNet and PSANet."""

from collections.abc import Mapping

from pyrseg_jax.models.weights.head import Head
from pyrseg_jax.models.weights.heads import AUXILIARY, CLASSIFIER, CONTEXT

TRAINED = {"dilation": "plain", "resize": "align_corners"}
Names = Mapping[str, tuple[str, str | None]]  # see `importer.Head`

# Both have the same last layers, and the same classifier beside them.
_COMMON: Names = {
    f"{CONTEXT}/merge": ("cls.0", "cls.1"),
    CLASSIFIER: ("cls.4", None),
    f"{AUXILIARY}/project_1": ("aux.0", "aux.1"),
    f"{AUXILIARY}/classify_1": ("aux.4", None),
}
_PSPNET: Names = {
    f"{CONTEXT}/pool_{bins}": (f"ppm.features.{i}.1", f"ppm.features.{i}.2") for i, bins in enumerate((1, 2, 3, 6))
}
_PSANET: Names = {
    f"{CONTEXT}/collect_reduce": ("psa.reduce.0", "psa.reduce.1"),
    f"{CONTEXT}/collect_hidden": ("psa.attention.0", "psa.attention.1"),
    f"{CONTEXT}/collect_scores": ("psa.attention.3", None),
    f"{CONTEXT}/distribute_reduce": ("psa.reduce_p.0", "psa.reduce_p.1"),
    f"{CONTEXT}/distribute_hidden": ("psa.attention_p.0", "psa.attention_p.1"),
    f"{CONTEXT}/distribute_scores": ("psa.attention_p.3", None),
    f"{CONTEXT}/join": ("psa.proj.0", "psa.proj.1"),
}

SEMSEG = (
    Head("PSPNet, semseg", "ppm.features.0.1.weight", {**_PSPNET, **_COMMON}, trained=TRAINED),
    Head("PSANet, semseg", "psa.reduce_p.0.weight", {**_PSANET, **_COMMON}, trained=TRAINED),
)
