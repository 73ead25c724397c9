"""What the files of a checkpoint say about its variables, without the network they belong to."""

import hashlib
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from pyrseg_jax.training.checkpoint_items import ABOUT, VARIABLES, About


def fingerprint(folder: epath.Path) -> str:
    """Return a short text that tells the variables of a checkpoint from all others: a digest of their checksums."""
    about = About.model_validate(ocp.JsonCheckpointHandler().restore(folder / ABOUT))
    listed = "".join(f"{name}={found}\n" for name, found in sorted(about.checksums[VARIABLES].items()))
    return hashlib.sha256(listed.encode()).hexdigest()[:16]


def stored_variables(folder: epath.Path, sharding: Any) -> dict:
    """Return shapes and types of the variables as they are stored, for a command that need not wait for the network's own.

    Args:
      folder: folder of the checkpoint.
      sharding: the sharding that the arrays will have.
    """
    found = ocp.StandardCheckpointHandler().metadata(folder / VARIABLES)
    tree = getattr(found, "tree", found)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)
