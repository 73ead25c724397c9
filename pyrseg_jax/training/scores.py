"""Scores of checkpoints, and the rule that keeps the best checkpoint.

A checkpoint is written before it is evaluated, so its score lives in a file beside the checkpoints and not inside them.
"""

import json
import logging
from collections.abc import Sequence
from typing import Annotated, Any

from etils import epath
from pydantic import Field, RootModel

from pyrseg_jax.errors import UserError
from pyrseg_jax.storage import documents
from pyrseg_jax.storage.atomic import write_atomically
from pyrseg_jax.storage.paths import is_there

log = logging.getLogger(__name__)


class StoredScores(RootModel[dict[Annotated[int, Field(ge=0)], Annotated[float, Field(ge=0, le=1)]]]):
    """The content of the file of scores: mIoU by step."""


class Scores:
    """The mIoU of each evaluated step, kept in a JSON file.

    Args:
      path: path of the file. A missing or damaged file counts as empty; then the following steps decide which checkpoint is
        best.

    Raises:
      UserError: if the path is a folder, which no file can replace.
    """

    def __init__(self, path: epath.Path):
        self._path = path
        self._scores: dict[int, float] = {}
        if path.is_dir():
            raise UserError(f"{path} is a folder: expected a file; remove it")
        if is_there(path):
            try:
                self._scores = dict(documents.read_json(path, StoredScores, "the next evaluations replace it").root)
            except UserError as error:
                log.warning("%s", error)

    def __contains__(self, step: int) -> bool:
        return step in self._scores

    def get(self, step: int) -> float | None:
        """Return the score of a step, or None if it has not been evaluated."""
        return self._scores.get(step)

    def add(self, step: int, score: float, *, is_written: bool) -> None:
        """Record a score.

        Args:
          step: step of the checkpoint.
          score: mIoU of the checkpoint, 0 … 1.
          is_written: whether this process also updates the file; only one of the processes of a run may.
        """
        self._scores[step] = score
        self._write(is_written)

    def drop_after(self, step: int, *, is_written: bool) -> None:
        """Forget the scores of steps after `step`, because these steps will be trained again; `is_written` as in `add`."""
        if any(known > step for known in self._scores):
            self._scores = {known: score for known, score in self._scores.items() if known <= step}
            self._write(is_written)

    def _write(self, is_written: bool) -> None:
        if is_written:
            scores = {str(step): score for step, score in sorted(self._scores.items())}
            try:
                write_atomically(self._path, json.dumps(scores) + "\n")
            except OSError as error:
                raise UserError(
                    f"{self._path} cannot be written ({error.strerror or error}): make room or restore access, then start the "
                    "same command again, which continues from the last checkpoint"
                ) from error


class BestScored:
    """An Orbax preservation policy that keeps the checkpoint with the best score; among equals, the newest."""

    def __init__(self, scores: Scores):
        self._scores = scores

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        """Return one flag per checkpoint: whether to keep it. Orbax calls this with its checkpoints, oldest first."""
        scores = [self._scores.get(info.step) for info in checkpoints]
        best = max((score for score in scores if score is not None), default=None)
        kept = max((i for i, score in enumerate(scores) if score is not None and score == best), default=None)
        return [i == kept for i in range(len(checkpoints))]
