"""The rule that ends a training whose score no longer improves."""

import dataclasses

from pyrseg_jax.training.scores import Scores


@dataclasses.dataclass(frozen=True)
class EarlyStopping:
    """The rule that ends a training whose score no longer improves.

    It looks at the stored scores alone, so an interrupted run ends where one without interruptions does.

    Attributes:
      patience: number of evaluations in a row without an improvement that end the training; None: it is never ended.
      min_delta: by how much a score must be better than the best one before to count as an improvement.
    """

    patience: int | None = None
    min_delta: float = 0.0

    def num_without_improvement(self, scores: Scores) -> int:
        """Count the evaluations since the last improvement."""
        return self._since_best(scores)[0]

    def reason(self, scores: Scores) -> str | None:
        """Return why the training ends, or None if it goes on."""
        if self.patience is None:
            return None
        num, step, best = self._since_best(scores)
        if num < self.patience:
            return None
        by = f" by more than {self.min_delta:g}" if self.min_delta else ""
        return (
            f"{scores.metric} did not improve{by} in {num} evaluation{'s' if num > 1 else ''} (patience={self.patience}): "
            f"the best is {best:.4f} at step {step}"
        )

    def _since_best(self, scores: Scores) -> tuple[int, int, float]:
        """Return the number of evaluations since the last improvement, and its step and score."""
        num, best_step, best = 0, 0, None
        for step, score in scores.by_step():
            if best is None or scores.gain(score, best) > self.min_delta:
                num, best_step, best = 0, step, score
            else:
                num += 1
        return num, best_step, 0.0 if best is None else best
