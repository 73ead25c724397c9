"""The items of a checkpoint: which part of the state is stored where."""

import dataclasses
from typing import Any

from pydantic import ConfigDict

from pyrseg_jax.storage import documents
from pyrseg_jax.training.step import TrainState

VARIABLES, TRAINING, ABOUT = "variables", "training", "about"


class About(documents.Document):
    """The item `about` of a checkpoint: checksums by item and array, and the class names. What else it says is for people."""

    model_config = ConfigDict(frozen=True, extra="allow")

    checksums: dict[str, dict[str, str]]
    classes: tuple[str, ...] = ()  # older checkpoints do not name them


def items_of(state: TrainState) -> dict[str, dict]:
    """Return the items with arrays: `variables`, which predict, and `training`, the rest of what the next step needs.

    With a moving average, `variables` holds the average, so that all that reads a checkpoint to predict takes it; the variables of
    the step itself then are in `training`.
    """
    training = {"step": state.step, "opt_state": state.opt_state}
    return {VARIABLES: state.predicting, TRAINING: training if state.average is None else training | state.variables}


def state_of(like: TrainState, items: dict[str, Any]) -> TrainState:
    """Put a state together from its items; `like` says whether it has a moving average."""
    if like.average is None:
        return dataclasses.replace(like, **items[VARIABLES], **items[TRAINING])
    return dataclasses.replace(like, average=items[VARIABLES], **items[TRAINING])
