"""Scores of checkpoints, and the rule that keeps the best checkpoint.

A checkpoint is written before it is evaluated, so its score lives in a file beside the checkpoints and not inside them.
"""

import json
import logging
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

from etils import epath
from pydantic import ConfigDict, Field, RootModel

from pyrseg_jax.errors import UserError
from pyrseg_jax.storage import documents
from pyrseg_jax.storage.atomic import write_atomically
from pyrseg_jax.storage.paths import is_there

log = logging.getLogger(__name__)


class Metric(NamedTuple):
    """A score of an evaluation: its meaning, and whether more of it is better."""

    meaning: str
    is_higher_better: bool = True


MIOU = "miou"
# Scores by their key in the result of an evaluation.
METRICS = {
    MIOU: Metric("mean IoU over the classes that occur"),
    "miou_all_classes": Metric("mean IoU over all classes"),
    "boundary_miou": Metric("mean IoU near semantic boundaries"),
    "pixel_accuracy": Metric("share of correct pixels"),
    "mean_accuracy": Metric("share of correct pixels, averaged over the classes"),
    "mean_dice": Metric("Dice, averaged over the classes"),
    "mean_precision": Metric("precision, averaged over the classes"),
    "mean_recall": Metric("recall, averaged over the classes"),
    "frequency_weighted_iou": Metric("IoU, weighted by the pixels of each class"),
    "image_miou": Metric("mean IoU of each image, averaged over the images"),
    "class_image_miou": Metric("IoU of each class over the images, averaged over the classes"),
    "ade20k_score": Metric("mean of pixel_accuracy and miou_all_classes"),
    "loss": Metric("validation loss; less is better", is_higher_better=False),
}
Step = Annotated[int, Field(ge=0)]


class StoredScores(RootModel[dict[Step, Annotated[float, Field(ge=0, le=1)]]]):
    """The content of the file of scores: mIoU by step."""


class NamedScores(documents.Document):
    """The content of the file of scores for any other metric."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: str
    scores: dict[Step, Annotated[float, Field(allow_inf_nan=False)]]


class Scores:
    """The score of each evaluated step, kept in a JSON file.

    Args:
      path: path of the file. A missing or damaged file counts as empty; then the following steps decide which checkpoint is
        best.
      metric: the score, a key of `METRICS`.

    Raises:
      UserError: if the path is a folder, which no file can replace.
    """

    def __init__(self, path: epath.Path, metric: str = MIOU):
        self._path, self.metric = path, metric
        self._scores: dict[int, float] = {}
        if path.is_dir():
            raise UserError(f"{path} is a folder: expected a file; remove it")
        if is_there(path):
            try:
                self._scores = self._read()
            except UserError as error:
                log.warning("%s", error)

    def _read(self) -> dict[int, float]:
        advice = "the next evaluations replace it"
        if self.metric == MIOU:
            return dict(documents.read_json(self._path, StoredScores, advice).root)
        stored = documents.read_json(self._path, NamedScores, advice)
        if stored.metric != self.metric:
            raise UserError(f"{self._path}: metric={stored.metric!r}: expected {self.metric!r}; {advice}")
        return dict(stored.scores)

    def __contains__(self, step: int) -> bool:
        return step in self._scores

    def get(self, step: int) -> float | None:
        """Return the score of a step, or None if it has not been evaluated."""
        return self._scores.get(step)

    def add(self, step: int, score: float, *, is_written: bool) -> None:
        """Record a score.

        Args:
          step: step of the checkpoint.
          score: the metric of the checkpoint; an mIoU is a fraction of 1.
          is_written: whether this process also updates the file; only one of the processes of a run may.
        """
        self._scores[step] = score
        self._write(is_written)

    def gain(self, score: float, other: float) -> float:
        """Return by how much a score is better than another one; negative if it is worse."""
        return score - other if METRICS[self.metric].is_higher_better else other - score

    def by_step(self) -> list[tuple[int, float]]:
        """Return the steps and their scores, oldest first."""
        return sorted(self._scores.items())

    def drop_after(self, step: int, *, is_written: bool) -> None:
        """Forget the scores of steps after `step`, because these steps will be trained again; `is_written` as in `add`."""
        if any(known > step for known in self._scores):
            self._scores = {known: score for known, score in self._scores.items() if known <= step}
            self._write(is_written)

    def _write(self, is_written: bool) -> None:
        if is_written:
            scores = {str(step): score for step, score in self.by_step()}
            content = scores if self.metric == MIOU else {"metric": self.metric, "scores": scores}
            try:
                write_atomically(self._path, json.dumps(content) + "\n")
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
        kept = None
        for i, info in enumerate(checkpoints):
            score, best = (
                self._scores.get(info.step),
                None if kept is None else self._scores.get(checkpoints[kept].step),
            )
            if score is not None and (best is None or self._scores.gain(score, best) >= 0):
                kept = i
        return [i == kept for i in range(len(checkpoints))]
