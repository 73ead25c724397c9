"""Checkpoints: everything that the next step needs, so that a resumed run continues as if it had never stopped."""

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers as policies
from pydantic import ValidationError

from pyrseg_jax.distributed import mesh as mesh_lib
from pyrseg_jax.distributed import processes
from pyrseg_jax.errors import UserError
from pyrseg_jax.storage import documents
from pyrseg_jax.storage.paths import is_remote
from pyrseg_jax.training.checkpoint_files import (
    check_kinds,
    free_name,
    naming_metadata,
    remove_unfinished,
    short_reason,
)
from pyrseg_jax.training.checkpoint_items import ABOUT, VARIABLES, About, items_of, state_of
from pyrseg_jax.training.checksums import checksums, differing
from pyrseg_jax.training.scores import MIOU, BestScored, Scores
from pyrseg_jax.training.step import TrainState

log = logging.getLogger(__name__)

T = TypeVar("T")


class Checkpoints:
    """The checkpoints of one run, in `WORKDIR/checkpoints`.

    The state includes the step, and the order of the data is a function of seed and step, so nothing else is needed to
    resume. A checkpoint has three items: `variables` (parameters and batch statistics, or their moving average), which is all that
    inference reads; `training` (step, optimizer state, and what else the next step needs); and `about` (the checksum of every
    array, and the caller's `about`). The newest checkpoints are kept, and the one with the best score.

    Args:
      directory: the folder, on a local disk or in remote storage (gs://…).
      keep_last: number of checkpoints to keep besides the best one.
      is_reader: whether to read only. Then nothing is written or cleaned up, not even what another process is currently writing.
      about: a description that is stored with each checkpoint, for example the configuration. A checkpoint whose `classes` are
        others than those in here is not restored.
      metric: the score that decides which checkpoint is the best, a key of `scores.METRICS`.

    Raises:
      UserError: if the folder holds a named pipe or a device, or Orbax cannot list it.
    """

    def __init__(
        self,
        directory: epath.PathLike,
        keep_last: int = 2,
        *,
        is_reader: bool = False,
        about: dict | None = None,
        metric: str = MIOU,
    ):
        self._directory = epath.Path(directory)
        if not is_reader:
            self._directory.mkdir(parents=True, exist_ok=True)
        check_kinds(self._directory)
        self.scores = Scores(self._directory / "scores.json", metric)
        self._about = about or {}
        self._is_writing = self._has_failed = False
        if is_reader:
            options = ocp.CheckpointManagerOptions(read_only=True, save_interval_steps=0, create=False)
        else:
            # Orbax's `max_to_keep` together with `best_fn` would delete the newest checkpoint.
            policy = policies.AnyPreservationPolicy([policies.LatestN(keep_last), BestScored(self.scores)])
            options = ocp.CheckpointManagerOptions(
                preservation_policy=policy, enable_async_checkpointing=True, cleanup_tmp_directories=True
            )
        if not is_reader and processes.is_first():
            removed = remove_unfinished(self._directory)
            if removed:
                log.info("%s: removed what an interrupted run left unfinished: %s", directory, ", ".join(removed))
        with naming_metadata(self._directory):
            self._manager = ocp.CheckpointManager(_absolute(self._directory), options=options)

    def steps(self) -> list[int]:
        """Return the steps that have a checkpoint, oldest first."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: TrainState) -> None:
        """Start saving a checkpoint.

        Returns when the state has been copied; the files are written in the background, while the next steps run.

        Raises:
          UserError: if this checkpoint or an earlier one could not be written.
        """
        if step in self.steps():  # Orbax would silently save nothing
            return
        items = items_of(state)
        about = self._about | {
            "step": step,
            "devices": mesh_lib.describe_devices(),
            "processes": processes.count(),
            "checksums": {name: checksums(item) for name, item in items.items()},
        }
        self._is_writing = True
        args = {name: ocp.args.StandardSave(item) for name, item in items.items()} | {ABOUT: ocp.args.JsonSave(about)}
        self._report_failure(lambda: self._manager.save(step, args=ocp.args.Composite(**args)))

    def score(self, step: int, score: float | None) -> None:
        """Record the score of a step, which decides which checkpoint is the best; None (no labeled pixel) is ignored."""
        if score is not None:
            self.scores.add(step, score, is_written=processes.is_first())

    def is_scored(self, step: int) -> bool:
        """Return whether the score of a step is known."""
        return step in self.scores

    def restore(self, abstract_state: TrainState, step: int | None = None) -> TrainState | None:
        """Restore a state.

        Args:
          abstract_state: `jax.ShapeDtypeStruct`s with the shardings of the restored arrays, on any devices; see
            `abstract_on`.
          step: step of the checkpoint; by default the newest that is intact.

        Returns:
          The state, or None if there is no checkpoint at all.

        Raises:
          UserError: if `step` has no checkpoint, or no checkpoint can be read.
        """

        def read(candidate: int) -> TrainState:
            return state_of(abstract_state, self._read_items(candidate, items_of(abstract_state)))

        found = self._newest_intact(read, step)
        return None if found is None else found[1]

    def restore_variables(
        self, abstract_variables: dict | Callable[[epath.Path], dict], step: int | None = None
    ) -> tuple[int, dict] | None:
        """Restore parameters and batch statistics alone, without reading the optimizer's state.

        Args, errors and None as for `restore`; a function of the checkpoint's folder may return the shapes.

        Returns:
          The step of the checkpoint, and its variables.
        """

        def read(candidate: int) -> dict:
            shapes = abstract_variables
            if callable(shapes):
                shapes = _fail_together(lambda: abstract_variables(self.folder_of(candidate)))  # pyright: ignore
            return self._read_items(candidate, {VARIABLES: shapes})[VARIABLES]

        return self._newest_intact(read, step)

    def folder_of(self, step: int) -> epath.Path:
        """Return the folder of a checkpoint."""
        return _absolute(self._directory / str(step))

    def _newest_intact(self, read: Callable[[int], T], step: int | None) -> tuple[int, T] | None:
        steps = self.steps()
        if step is not None and step not in steps:
            known = ", ".join(map(str, steps)) or "none"
            raise UserError(f"{self._directory} has no checkpoint of step {step}: it has {known}")
        candidates = [step] if step is not None else steps[::-1]
        problem = ""
        for candidate in candidates:
            try:
                return candidate, read(candidate)
            except ValueError as error:
                problem = str(error)
            log.warning("checkpoint %d in %s cannot be read (%s)", candidate, self._directory, problem)
        if candidates:
            tried = ", ".join(map(str, candidates))
            raise UserError(
                f"{self._directory}: no checkpoint can be read (tried {tried}), the last one because {problem}: either they are "
                "damaged, or they belong to another network than the one configured: restore the files, or move the folder away"
            )
        return None

    def _read_items(self, step: int, abstract_items: dict[str, Any]) -> dict[str, Any]:
        """Read items of a checkpoint and compare them with their checksums; raises ValueError in all processes alike."""
        folder = self.folder_of(step)
        read_arrays, read_json = ocp.StandardCheckpointHandler(), ocp.JsonCheckpointHandler()

        def read() -> tuple[dict[str, Any], dict]:
            found = {
                name: read_arrays.restore(folder / name, args=ocp.args.StandardRestore(item))
                for name, item in abstract_items.items()
            }
            try:
                about = About.model_validate(read_json.restore(folder / ABOUT))
            except ValidationError as error:
                raise ValueError(f"{ABOUT}: {documents.describe_problem(error)}") from error
            self._check_classes(about.classes)
            return found, {name: about.checksums[name] for name in abstract_items}

        found, expected = _fail_together(read)
        for name, sums in expected.items():
            wrong = differing(found[name], sums)
            if wrong:
                more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
                raise ValueError(f"{name}: the bits of {wrong[0]}{more} are not those that were saved")
        return found

    def _check_classes(self, trained: tuple[str, ...]) -> None:
        named = tuple(self._about.get("classes", ()))
        if trained and named and trained != named:
            pairs = zip(trained, named, strict=False)
            theirs, ours = next(
                ((a, b) for a, b in pairs if a != b), (f"{len(trained)} classes", f"{len(named)} classes")
            )
            raise ValueError(f"it was trained with {theirs!r} where the run's classes.json now has {ours!r}")

    def set_aside_after(self, step: int) -> None:
        """Rename unreadable checkpoints newer than `step` to `damaged-N`, because the run will save these steps again.

        They are not deleted: perhaps the checkpoint is intact and the disk was at fault.
        """
        for newer in self.steps():
            if newer > step and processes.is_first():
                aside = free_name(self._directory / f"damaged-{newer}")
                (self._directory / str(newer)).rename(aside)
                log.warning("checkpoint %d was moved to %s; delete that folder if you do not need it", newer, aside)
        processes.wait_for_all("damaged checkpoints are out of the way")
        self._manager.reload()
        self.scores.drop_after(step, is_written=processes.is_first())

    def is_writing(self) -> bool:
        """Return whether a checkpoint is still being written in the background."""
        return self._manager.is_saving_in_progress()

    def check(self) -> None:
        """Raise UserError if writing a checkpoint in the background has failed by now."""
        # Orbax's `check_for_errors` loses errors of one of its threads; waiting for that thread raises them.
        if self._is_writing and not self.is_writing():
            self._is_writing = False
            self.wait()

    def wait(self) -> None:
        """Wait until everything is on disk; raises UserError if it could not be written."""
        self._report_failure(self._manager.wait_until_finished)

    def close(self) -> None:
        """Finish writing and release the folder."""
        if self._has_failed:  # the error was reported before, and Orbax would raise it again
            return
        self._report_failure(self._manager.close)

    def _report_failure(self, write: Callable[[], Any]) -> None:
        try:
            write()
        except Exception as error:  # Orbax and TensorStore raise errors of any type, for example for a full disk
            self._has_failed = True
            raise UserError(
                f"{self._directory}: a checkpoint could not be written ({short_reason(error)}); those before it are intact: make "
                "room or restore access, then start the same command again, which continues from the last checkpoint"
            ) from error


def abstract_on(state: Any, sharding: Any) -> Any:
    """Describe a state for `Checkpoints.restore`.

    Args:
      state: a tree of arrays or of their shapes.
      sharding: the sharding of the restored arrays: one for all, or a tree with one for each array.

    Returns:
      The same tree of `jax.ShapeDtypeStruct`s.
    """
    if isinstance(sharding, jax.sharding.Sharding):
        sharding = jax.tree.map(lambda _: sharding, state)
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, sharding)


def _fail_together(read: Callable[[], T]) -> T:
    """Call `read` in every process; if it fails in one of them, raise ValueError with its reason in all of them.

    Orbax's managers wait for all processes after reading. A process that failed to read would never get there, and its next
    collective operation would meet the others' wait. This package therefore reads through the handlers below the managers,
    which do not wait for other processes.
    """
    found, problem = None, None
    try:
        found = read()
    # Orbax and TensorStore raise errors of any type, even bare `Exception`s, for missing, truncated or garbled files.
    except Exception as error:
        problem = short_reason(error)
    problem = next((p for p in processes.gather(problem) if p is not None), None)
    if problem is not None:
        raise ValueError(problem)
    return found  # pyright: ignore[reportReturnType]  # None only after a problem


def _absolute(path: epath.Path) -> epath.Path:
    return path if is_remote(path) else epath.Path(path.absolute())
