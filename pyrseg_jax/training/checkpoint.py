"""Checkpoints: all that the next step needs, so that a run continues as if it had never stopped."""

import json
import logging
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from pyrseg_jax.errors import UserError

log = logging.getLogger(__name__)

# What Orbax and TensorStore raise for a file that is missing, cut off or garbled.
DAMAGE = (ValueError, KeyError, OSError, json.JSONDecodeError)


class Checkpoints:
    """The checkpoints of one run, in `WORKDIR/checkpoints`.

    The state holds the step, and the order of the data is a function of seed and step, so nothing more is saved than the
    state and its score. The last ones are kept, and the one with the best mIoU.
    """

    def __init__(self, directory: Path, keep_last: int = 2):
        options = ocp.CheckpointManagerOptions(
            # `max_to_keep` with `best_fn` would delete the latest.
            preservation_policy=policies.AnyPreservationPolicy(
                [
                    policies.LatestN(keep_last),
                    policies.BestN(
                        get_metric_fn=lambda metrics: metrics["miou"], n=1, keep_checkpoints_without_metrics=False
                    ),
                ]
            ),
            enable_async_checkpointing=True,
        )
        self._directory = directory
        self._manager = ocp.CheckpointManager(directory.absolute(), options=options)

    def steps(self) -> list[int]:
        """List the steps that there are checkpoints of, oldest first."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: Any, miou: float | None) -> None:
        """Begin to save; returns when the state has been copied, the writing goes on beside the next steps."""
        if step in self.steps():  # Orbax would return without saving or saying so
            return
        metrics = None if miou is None else {"miou": miou}
        self._manager.save(step, args=ocp.args.Composite(state=ocp.args.StandardSave(state)), metrics=metrics)

    def restore(self, abstract_state: Any, step: int | None = None) -> Any | None:
        """Restore a state, by default the newest that is whole; None if there is no checkpoint at all.

        Args:
          abstract_state: `jax.ShapeDtypeStruct`s with the shardings that the arrays shall have.
          step: a certain checkpoint.

        Raises:
          UserError: if `step` does not exist, or no checkpoint can be read.
        """
        steps = self.steps()
        if step is not None and step not in steps:
            known = ", ".join(map(str, steps)) or "none"
            raise UserError(f"{self._directory} has no checkpoint of step {step}: it has {known}")
        candidates = [step] if step is not None else steps[::-1]
        for candidate in candidates:
            try:
                args = ocp.args.Composite(state=ocp.args.StandardRestore(abstract_state))
                return self._manager.restore(candidate, args=args)["state"]
            except DAMAGE as error:
                reason = str(error).strip().split("\n")[0][:200]
                log.warning("checkpoint %d in %s cannot be read (%s)", candidate, self._directory, reason)
        if candidates:
            raise UserError(
                f"{self._directory}: no checkpoint can be read (tried {', '.join(map(str, candidates))}); either they are "
                "damaged or they are of another network than config.model describes: restore the files, or move the folder away"
            )
        return None

    def delete_after(self, step: int) -> None:
        """Remove checkpoints newer than `step`, which turned out to be damaged: their step is going to be saved anew."""
        for newer in self.steps():
            if newer > step:
                self._manager.delete(newer)

    def wait(self) -> None:
        """Return when everything is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Finish writing and let go of the folder."""
        self._manager.close()


def abstract_on(state: Any, sharding: Any) -> Any:
    """Describe a state with the sharding that its arrays shall have, one for all or a tree of them, for `Checkpoints.restore`."""
    if isinstance(sharding, jax.sharding.Sharding):
        sharding = jax.tree.map(lambda _: sharding, state)
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, sharding)
