"""Read files of networks with InPlaceABN, which is a batch normalization and an activation in one module.

Such a module uses |weight| + ε as its scale, so a weight may be negative without any effect. It keeps no count of batches, unlike
PyTorch's normalizations. Where it stands for a pair of normalization and activation, its names lack the index inside the pair.

Source: the public code of InPlaceABN, as in HRNet's release (`sync_bn/inplace_abn`); `module_helper.py` of openseg.pytorch and
  `networks/ccnet.py` of CCNet's release, which use it with its default activation, a leaky ReLU, outside of the backbone.
"""

from collections.abc import Mapping

import numpy as np

from pyrseg_jax.models.normalization import EPSILON
from pyrseg_jax.models.weights.head import COUNTER, Head, Path, State

_INNER = ".0"  # index of the normalization in its pair with an activation


def restore_indices(head: Head, state: State) -> dict[str, np.ndarray]:
    """Return the arrays of a head, those of InPlaceABN by the names that a normalization in a pair has in other files."""
    names = dict.fromkeys(state)
    renamed = {}
    for _, norm in head.names.values():
        if norm is not None and norm.endswith(_INNER):
            short = norm.removesuffix(_INNER)
            renamed |= {
                f"{short}.{kind}": f"{norm}.{kind}"
                for kind in ("weight", "bias", "running_mean", "running_var")
                if f"{short}.{kind}" in names and f"{norm}.{kind}" not in names
            }
    return {renamed.get(name, name): array for name, array in state.items()}


def is_in_place(head: Head, head_state: State, state_dict: State) -> bool:
    """Return whether a file comes from a network with InPlaceABN.

    Args:
      head: the head of the file.
      head_state: the head's arrays by the names in the file.
      state_dict: all arrays of the file by these names.
    """
    if head.in_place is None:
        return False
    if head.in_place == "leaky_relu" and any(norm and norm.endswith(_INNER) for _, norm in head.names.values()):
        return set(restore_indices(head, head_state)) != set(head_state)
    return not any(name.endswith(COUNTER) for name in state_dict)


def effective_scales(variables: Mapping[Path, np.ndarray]) -> dict[Path, np.ndarray]:
    """Return the variables with the scales that InPlaceABN uses."""
    return {
        path: np.abs(array) + np.float32(EPSILON) if path[-1] == "scale" else array for path, array in variables.items()
    }
