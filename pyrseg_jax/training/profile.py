"""A trace of some steps, to see where their time goes: `--config.training.profile=10:15`."""

import contextlib
import logging
import re

import jax
from etils import epath

from pyrseg_jax.errors import UserError
from pyrseg_jax.storage.paths import written_on_disk
from pyrseg_jax.training.step import Metrics, StepFunction, TrainState

log = logging.getLogger(__name__)


def parse_steps(text: str | None) -> tuple[int, int] | None:
    """Read `"10:15"`, the first and the last step of a trace; raises UserError for what is none."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+):(\d+)", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise UserError(
            f"config.training.profile={text!r}: expected the first and the last step of the trace, like '10:15'"
        )
    return int(found[1]), int(found[2])


class Profiled:
    """A training step that writes a trace of some of its calls, with all that the host does between them.

    Enter it as a context: a run that ends early leaves the trace of the steps that it took.

    Args:
      train_step: to call.
      steps: the first and the last of the trace.
      first_step: how many steps were taken before the first call.
      folder: where traces go, one below it for each; TensorBoard's profile plugin and Perfetto read them.
    """

    def __init__(self, train_step: StepFunction, steps: tuple[int, int], first_step: int, folder: epath.Path):
        self._train_step, self._steps, self._step = train_step, steps, first_step
        self._folder, self._held = folder, contextlib.ExitStack()
        self._is_tracing = False

    def __enter__(self) -> "Profiled":
        if self._step >= self._steps[1]:
            log.warning("no trace: step %d is behind config.training.profile=%d:%d", self._step, *self._steps)
        return self

    def __exit__(self, *_) -> None:
        self._stop()

    def __call__(self, state: TrainState, batch: dict[str, jax.Array]) -> tuple[TrainState, Metrics]:
        """Take a step; before the first and after the last of the trace, wait for the device."""
        self._step += 1
        first, last = self._steps
        if not self._is_tracing and first <= self._step <= last:
            jax.block_until_ready(state)
            place = self._held.enter_context(written_on_disk(self._folder))
            jax.profiler.start_trace(str(place))
            self._is_tracing = True
        with jax.profiler.StepTraceAnnotation("train", step_num=self._step):
            state, metrics = self._train_step(state, batch)
        if self._step == last:
            jax.block_until_ready(state)
            self._stop()
        return state, metrics

    def _stop(self) -> None:
        if not self._is_tracing:
            return
        self._is_tracing = False
        jax.profiler.stop_trace()
        self._held.close()
        log.info(
            "a trace of steps %d … %d is in %s (docs/log/performance.md)", self._steps[0], self._step, self._folder
        )
