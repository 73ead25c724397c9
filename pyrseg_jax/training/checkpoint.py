"""Checkpoints: all that the next step needs, so that a run continues as if it had never stopped."""

import logging
import re
from collections.abc import Callable
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers as policies

from pyrseg_jax.distributed import mesh as mesh_lib
from pyrseg_jax.distributed import processes
from pyrseg_jax.errors import UserError
from pyrseg_jax.training.checksums import checksums, differing
from pyrseg_jax.training.scores import BestScored, Scores
from pyrseg_jax.training.step import TrainState

log = logging.getLogger(__name__)

VARIABLES, TRAINING, ABOUT = "variables", "training", "about"  # the parts of a checkpoint
WHOLE = "state"  # the only part of checkpoints that were written before there were checksums


class Checkpoints:
    """The checkpoints of one run, in `WORKDIR/checkpoints`.

    The state holds the step, and the order of the data is a function of seed and step, so nothing more is needed. A
    checkpoint has three parts: `variables` (parameters and batch statistics), which is all that inference reads; `training`
    (step and optimizer's state); `about` (checksums of every array, and whatever is given as `about`). The last ones are
    kept, and the one with the best mIoU.

    Args:
      directory: on a disk, or in a bucket as gs://….
      keep_last: how many to keep beside the best one.
      is_reader: nothing is written or cleaned up, not even what another process is just writing.
      about: kept with each checkpoint, for whoever finds it: configuration, devices.
    """

    def __init__(
        self, directory: epath.PathLike, keep_last: int = 2, *, is_reader: bool = False, about: dict | None = None
    ):
        self._directory = epath.Path(directory)
        if not is_reader:
            self._directory.mkdir(parents=True, exist_ok=True)
        self._scores = Scores(self._directory / "scores.json")
        self._about = about or {}
        self._is_writing = self._has_failed = False
        if is_reader:
            options = ocp.CheckpointManagerOptions(read_only=True, save_interval_steps=0, create=False)
        else:
            # `max_to_keep` with `best_fn` would delete the latest.
            policy = policies.AnyPreservationPolicy([policies.LatestN(keep_last), BestScored(self._scores)])
            options = ocp.CheckpointManagerOptions(
                preservation_policy=policy, enable_async_checkpointing=True, cleanup_tmp_directories=True
            )
        self._manager = ocp.CheckpointManager(_absolute(self._directory), options=options)

    def steps(self) -> list[int]:
        """List the steps that there are checkpoints of, oldest first."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: TrainState) -> None:
        """Begin to save; returns when the state has been copied, the writing goes on beside the next steps.

        Raises:
          UserError: if this or an earlier one could not be written.
        """
        if step in self.steps():  # Orbax would return without saving or saying so
            return
        about = self._about | {
            "step": step,
            "devices": mesh_lib.describe_devices(),
            "processes": processes.count(),
            "checksums": {name: checksums(part) for name, part in _parts_of(state).items()},
        }
        self._is_writing = True
        arrays = {name: ocp.args.StandardSave(part) for name, part in _parts_of(state).items()}
        self._writing(
            lambda: self._manager.save(step, args=ocp.args.Composite(**arrays, **{ABOUT: ocp.args.JsonSave(about)}))
        )

    def score(self, step: int, miou: float | None) -> None:
        """Tell the mIoU of a step, by which the best checkpoint is kept."""
        if miou is not None:
            self._scores.add(step, miou, is_written=processes.is_first())

    def is_scored(self, step: int) -> bool:
        """Tell whether the mIoU of a step is known."""
        return step in self._scores

    def restore(self, abstract_state: TrainState, step: int | None = None) -> TrainState | None:
        """Restore a state, by default the newest that is whole; None if there is no checkpoint at all.

        Args:
          abstract_state: `jax.ShapeDtypeStruct`s with the shardings that the arrays shall have, on any devices.
          step: a certain checkpoint.

        Raises:
          UserError: if `step` does not exist, or no checkpoint can be read.
        """

        def read(candidate: int) -> TrainState:
            if self._is_old(candidate):
                return self._read(candidate, {WHOLE: abstract_state})[WHOLE]
            found = self._read(candidate, _parts_of(abstract_state))
            return abstract_state.replace(**found[VARIABLES], **found[TRAINING])

        found = self._newest_whole(read, step)
        return None if found is None else found[1]

    def restore_variables(self, abstract_variables: dict, step: int | None = None) -> tuple[int, dict] | None:
        """Restore a step's parameters and batch statistics alone, without reading the optimizer's state; else as `restore`."""

        def read(candidate: int) -> dict:
            if self._is_old(candidate):
                return self._read_some_of_old(candidate, abstract_variables)
            return self._read(candidate, {VARIABLES: abstract_variables})[VARIABLES]

        return self._newest_whole(read, step)

    def _newest_whole(self, read: Callable[[int], Any], step: int | None) -> tuple[int, Any] | None:
        steps = self.steps()
        if step is not None and step not in steps:
            known = ", ".join(map(str, steps)) or "none"
            raise UserError(f"{self._directory} has no checkpoint of step {step}: it has {known}")
        candidates = [step] if step is not None else steps[::-1]
        for candidate in candidates:
            try:
                return candidate, read(candidate)
            except ValueError as error:
                problem = str(error)
            log.warning("checkpoint %d in %s cannot be read (%s)", candidate, self._directory, problem)
        if candidates:
            raise UserError(
                f"{self._directory}: no checkpoint can be read (tried {', '.join(map(str, candidates))}); either they are "
                "damaged or they are of another network than config.model describes: restore the files, or move the folder away"
            )
        return None

    def _read(self, step: int, parts: dict[str, Any]) -> dict[str, Any]:
        """Read parts of a checkpoint and hold them against their checksums; raises ValueError in all processes alike."""
        folder = _absolute(self._directory / str(step))
        read_arrays, read_json = ocp.StandardCheckpointHandler(), ocp.JsonCheckpointHandler()

        def read() -> tuple[dict[str, Any], dict]:
            found = {
                name: read_arrays.restore(folder / name, args=ocp.args.StandardRestore(part))
                for name, part in parts.items()
            }
            if WHOLE in parts:  # from before there were checksums
                return found, {}
            sums = read_json.restore(folder / ABOUT)["checksums"]
            return found, {name: sums[name] for name in parts}

        found, expected = _together(read)
        for name, sums in expected.items():
            wrong = differing(found[name], sums)
            if wrong:
                more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
                raise ValueError(f"{name}: the bits of {wrong[0]}{more} are not those that were saved")
        return found

    def _is_old(self, step: int) -> bool:
        return (self._directory / str(step) / WHOLE).exists()

    def _read_some_of_old(self, step: int, abstract_variables: dict) -> dict:
        restore_args = ocp.checkpoint_utils.construct_restore_args(abstract_variables)
        args = ocp.args.PyTreeRestore(abstract_variables, restore_args=restore_args, partial_restore=True)
        folder = _absolute(self._directory / str(step) / WHOLE)
        return _together(lambda: ocp.PyTreeCheckpointHandler().restore(folder, args=args))

    def set_aside_after(self, step: int) -> None:
        """Rename checkpoints newer than `step`, which could not be read, to `damaged-N`: their steps will be saved anew.

        They are not deleted: what could not be read may have been in order, on a disk that was not.
        """
        for newer in self.steps():
            if newer > step:
                aside = self._directory / f"damaged-{newer}"
                if processes.is_first():
                    if aside.exists():
                        aside.rmtree()
                    (self._directory / str(newer)).rename(aside)
                log.warning("checkpoint %d was moved to %s; delete that if you do not need it", newer, aside)
        processes.wait_for_all("damaged checkpoints are out of the way")
        self._manager.reload()
        self._scores.drop_after(step, is_written=processes.is_first())

    def is_writing(self) -> bool:
        """Tell whether a checkpoint is still being written beside the steps."""
        return self._manager.is_saving_in_progress()

    def check(self) -> None:
        """Raise UserError if a checkpoint that is being written beside the steps has failed by now."""
        # Orbax's own `check_for_errors` forgets the errors of a thread of its own; waiting for that one raises them.
        if self._is_writing and not self.is_writing():
            self._is_writing = False
            self.wait()

    def wait(self) -> None:
        """Return when everything is on disk; raises UserError if it could not be written."""
        self._writing(self._manager.wait_until_finished)

    def close(self) -> None:
        """Finish writing and let go of the folder."""
        if self._has_failed:  # which was said before, and Orbax would say it again
            return
        self._writing(self._manager.close)

    def _writing(self, act: Callable[[], Any]) -> None:
        try:
            act()
        except Exception as error:  # anything, as for files that cannot be read; for a full disk, for one
            self._has_failed = True
            raise UserError(
                f"{self._directory}: a checkpoint could not be written ({_first_line(error)}); those before it are whole: make "
                "room or restore access, then start the same command again, which continues from the last one"
            ) from error


def abstract_on(state: Any, sharding: Any) -> Any:
    """Describe a state with the sharding that its arrays shall have, one for all or a tree of them, for `Checkpoints.restore`."""
    if isinstance(sharding, jax.sharding.Sharding):
        sharding = jax.tree.map(lambda _: sharding, state)
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, sharding)


def _together(read: Callable[[], Any]) -> Any:
    """Return what is read; if one process cannot read it, ValueError with its reason is raised in all of them.

    Orbax's managers wait for all processes after reading: one in which that fails would never come there, and what it does
    next would meet the others' waiting. So files are read by the handlers below the managers, which wait for nobody.
    """
    try:
        found, problem = read(), None
    # Orbax and TensorStore raise anything, bare `Exception`s among it, for files that are missing, cut off or garbled.
    except Exception as error:
        found, problem = None, _first_line(error)
    problem = next((p for p in processes.gather(problem) if p is not None), None)
    if problem is not None:
        raise ValueError(problem)
    return found


def _parts_of(state: TrainState) -> dict[str, dict]:
    return {VARIABLES: state.variables, TRAINING: {"step": state.step, "opt_state": state.opt_state}}


def _absolute(path: epath.Path) -> epath.Path:
    return path if "://" in str(path) else epath.Path(path.absolute())


def _first_line(error: Exception) -> str:
    """Shorten a message; TensorStore's has what the system said, like "No space left on device", after all paths."""
    text = str(error).strip() or type(error).__name__
    said = re.search(r"([^:]+) \[os_error_code", text)
    return said[1].strip() if said else text.split("\n")[0].partition(". See full TensorStore details")[0][:200]
