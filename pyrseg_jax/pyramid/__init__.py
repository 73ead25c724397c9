"""The paper's algebra: pure functions on arrays that can be jitted and work on sharded batches.

A pyramid is a tuple ordered coarse → fine: index 0 is the paper's level 1.
"""

from pyrseg_jax.conventions import VOID
from pyrseg_jax.pyramid.fuse import Fused, fuse
from pyrseg_jax.pyramid.levels import DONT_CARE
from pyrseg_jax.pyramid.losses import pyramid_loss
from pyrseg_jax.pyramid.specialize import PROCEDURES, specialize
from pyrseg_jax.pyramid.targets import VOID_RULES, Targets, build_targets

__all__ = [
    "DONT_CARE",
    "PROCEDURES",
    "VOID",
    "VOID_RULES",
    "Fused",
    "Targets",
    "build_targets",
    "fuse",
    "pyramid_loss",
    "specialize",
]
