"""Losses and choices of what to learn from that are not part of the paper; its own loss is `pyramid.pyramid_loss`.

One file per loss: a pure function of logits (N, h, w, C) and classes (N, h, w) with 255 = don't care, or 65535 in uint16, computed
in float32. A batch without a class to learn from gives 0 and a zero gradient. To add a loss, write its file and list it
in `registry.LOSSES`; `mixture.SemanticLosses` combines the losses, and `training/objective.py` applies them to networks.
"""

from pyrseg_jax.training.losses.hard_examples import kth_smallest, ohem_targets
from pyrseg_jax.training.losses.mixture import LevelTargets, SemanticLosses
from pyrseg_jax.training.losses.registry import LOSSES, LossSettings, LossSpec

__all__ = ["LOSSES", "LevelTargets", "LossSettings", "LossSpec", "SemanticLosses", "kth_smallest", "ohem_targets"]
