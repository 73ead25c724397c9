"""Scores of checkpoints, which are known only after the checkpoint was written, and the rule that keeps the best one."""

import contextlib
import json
from collections.abc import Sequence
from typing import Any

from etils import epath

LEGACY = "miou"  # older checkpoints hold their score themselves, under this name


class Scores:
    """mIoU of each step that was evaluated, kept in a file."""

    def __init__(self, path: epath.Path):
        self._path = path
        self._scores: dict[int, float] = {}
        # None yet, or damaged: then the steps to come decide which is best.
        with contextlib.suppress(OSError, ValueError, AttributeError, TypeError):
            self._scores = {int(step): float(score) for step, score in json.loads(path.read_text()).items()}

    def __contains__(self, step: int) -> bool:
        return step in self._scores

    def get(self, step: int) -> float | None:
        """Return the score of a step, if it has one."""
        return self._scores.get(step)

    def add(self, step: int, score: float, *, is_written: bool) -> None:
        """Keep a score; `is_written`: by this process, in the file, too."""
        self._scores[step] = score
        self._write(is_written)

    def drop_after(self, step: int, *, is_written: bool) -> None:
        """Forget the scores of later steps, which are going to be taken again."""
        if any(known > step for known in self._scores):
            self._scores = {known: score for known, score in self._scores.items() if known <= step}
            self._write(is_written)

    def _write(self, is_written: bool) -> None:
        if is_written:
            partial = self._path.with_name(self._path.name + ".partial")
            partial.write_text(json.dumps({str(step): score for step, score in sorted(self._scores.items())}) + "\n")
            partial.replace(self._path)


class BestScored:
    """A preservation policy of Orbax: keep the checkpoint with the best score, of several the newest."""

    def __init__(self, scores: Scores):
        self._scores = scores

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        """Tell for each checkpoint whether to keep it."""
        scores = [self._of(info) for info in checkpoints]
        best = max((s for s in scores if s is not None), default=None)
        newest = max((i for i, s in enumerate(scores) if s is not None and s == best), default=None)
        return [i == newest for i in range(len(checkpoints))]

    def _of(self, info: Any) -> float | None:
        score = self._scores.get(info.step)
        return score if score is not None else (info.metrics or {}).get(LEGACY)
