"""What programs put before the names of a network's arrays when the network is a part of something larger."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from pyrseg_jax.errors import UserError
from pyrseg_jax.models.weights.head import COUNTER, State

# Training programs put these before every name; `torch.compile` puts the last.
PREFIXES = ("module.", "model.", "_orig_mod.")
# Files of whole segmenters may put one of these before the backbone's names.
BACKBONE_PREFIXES = ("backbone.", "pretrained.")
MIN_SHARE = 0.2  # of a file's arrays that a backbone holds, at least; smaller modules are parts of heads
# timm's `features_only` names the parts of a list so: `stages_0.` instead of `stages.0.`.
FLATTENED = re.compile(r"(^|\.)(stem|stages|layers)_(\d+)\.")
NUM_NAMED = 5  # names that an error message lists before "and 7 more"


def strip(state_dict: State) -> dict[str, np.ndarray]:
    """Remove counters, and the prefixes of training programs, in any order; name lists of modules as the networks do."""
    state = {name: array for name, array in state_dict.items() if not name.endswith(COUNTER)}
    state = {FLATTENED.sub(r"\1\2.\3.", name): array for name, array in state.items()}
    for _ in PREFIXES:
        for prefix in PREFIXES:
            state = {name.removeprefix(prefix): array for name, array in state.items()}
    return state


def find_backbone(state: Mapping[str, np.ndarray], marker: str, known: Sequence[str]) -> Mapping[str, np.ndarray]:
    """Rename the arrays of a backbone that is a part of somebody's own module, such as `net.encoder.`, to `backbone.`.

    Modules that all names begin with, such as `net.`, are removed.

    Args:
      state: arrays by name.
      marker: an array that every such backbone has.
      known: prefixes that need no renaming.

    Raises:
      UserError: if the file holds several such backbones, each in a module of its own.
    """
    if any(f"{prefix}{marker}" in state for prefix in ("", *known)):
        return state
    found = find_copies(state, marker)
    if len(found) > 1:
        raise UserError(
            f"the file holds {len(found)} networks of this kind ({some_of(found)}): save the state dict of one alone"
        )
    if not found:
        return state
    shared = os.path.commonprefix([*state])
    shared = shared[: shared.rfind(".") + 1]
    shared = shared if found[0].startswith(shared) else found[0]
    inner = "" if shared == found[0] else "backbone."
    renamed = {}
    for name, array in state.items():
        is_inside = name.startswith(found[0])
        renamed[f"{inner}{name.removeprefix(found[0])}" if is_inside else name.removeprefix(shared)] = array
    return renamed


def find_copies(state: State, marker: str) -> tuple[str, ...]:
    """Return the modules, such as `ema_model.`, that hold an array of this name and a fair share of all arrays.

    Modules with numbers are layers of a backbone.
    """
    prefixes = [name.removesuffix(marker) for name in state if name.endswith(f".{marker}")]
    return tuple(
        prefix
        for prefix in prefixes
        if not re.search(r"\d", prefix) and sum(name.startswith(prefix) for name in state) > MIN_SHARE * len(state)
    )


def some_of(names: Iterable[str]) -> str:
    """List the first names, and say how many more there are."""
    names = list(names)
    return ", ".join(names[:NUM_NAMED]) + (f" and {len(names) - NUM_NAMED} more" if len(names) > NUM_NAMED else "")
