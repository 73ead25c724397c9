"""The loop: next batch → step → (evaluate → save) where they are due, until the last step."""

import dataclasses
import logging
import math
import time
from collections.abc import Callable, Iterator
from typing import Protocol, runtime_checkable

import jax
import numpy as np

from pyrseg_jax.errors import UserError
from pyrseg_jax.training.checkpoint import Checkpoints
from pyrseg_jax.training.step import Metrics, StepFunction, TrainState

log = logging.getLogger(__name__)


@runtime_checkable
class Recorder(Protocol):
    """Where the loop writes to; `reporting.logbook.Logbook` is one."""

    def advance(self, step: int, loss: float) -> None: ...

    def write_step(self, step: int, values: dict[str, float]) -> None: ...


@dataclasses.dataclass(frozen=True)
class Schedule:
    """When what is due, in steps.

    Attributes:
      last_step: the step to end at.
      batch_size: images per step, for the rate.
      log_every, evaluate_every, save_every: intervals; the last step is always evaluated and saved.
    """

    last_step: int
    batch_size: int
    log_every: int
    evaluate_every: int
    save_every: int

    def is_due(self, step: int, every: int) -> bool:
        return step % every == 0 or step == self.last_step


def run_loop(
    state: TrainState,
    train_step: StepFunction,
    batches: Iterator[dict[str, np.ndarray]],
    *,
    to_devices: Callable[[dict[str, np.ndarray]], dict[str, jax.Array]],
    evaluate: Callable[[int, TrainState], float | None],
    checkpoints: Checkpoints,
    recorder: Recorder,
    learning_rate: Callable[[int], float],
    schedule: Schedule,
) -> TrainState:
    """Train from the state's step to the schedule's last, and return the final state.

    Args:
      state: to start from; its memory is taken over.
      train_step: (state, batch on devices) → (state, metrics).
      batches: begins with the batch of the state's step.
      to_devices: host batch → sharded batch.
      evaluate: (step, state) → mIoU; writes its results itself.
      checkpoints: where states go, with the mIoU if there is one.
      recorder: gets the metrics.
      learning_rate: step → the rate that the optimizer used, for the record.
      schedule: when what is due.

    Raises:
      UserError: naming the step, if the loss or the gradient is not finite. Nothing is saved from that step on.
    """
    first_step = int(state.step)
    clock = _Clock(schedule.batch_size, first_step)
    pending: tuple[int, Metrics] | None = None
    for step in range(first_step + 1, schedule.last_step + 1):
        with clock.waiting():
            batch = to_devices(next(batches))
        if step == first_step + 1:
            log.info("compiling the training step (kept for the next run)")
        state, metrics = train_step(state, batch)
        # Fetched one step late: while the host reads a step's metrics, the device already works on the next.
        if pending is not None:
            num_done = step if metrics["loss"].is_ready() else step - 1
            _record(*pending, num_done, clock, recorder, learning_rate, schedule)
        pending = (step, metrics)
        if step == first_step + 1:
            jax.block_until_ready(metrics)
            clock.read(step)  # compilation is not speed
        is_evaluated, is_saved = (schedule.is_due(step, n) for n in (schedule.evaluate_every, schedule.save_every))
        if is_evaluated or is_saved:
            _record(step, metrics, step, clock, recorder, learning_rate, schedule)  # raises before a bad state is saved
            pending = None
            with clock.paused():
                miou = evaluate(step, state) if is_evaluated else None
                checkpoints.save(step, state, miou)
    checkpoints.wait()
    return state


def _record(
    step: int,
    metrics: Metrics,
    num_done: int,
    clock: "_Clock",
    recorder: Recorder,
    learning_rate: Callable,
    schedule: Schedule,
) -> None:
    values = {name: float(value) for name, value in jax.device_get(metrics).items()}
    for name in ("loss", "gradient_norm"):
        if not math.isfinite(values[name]):
            raise UserError(
                f"step {step}: the {name.replace('_', ' ')} is {values[name]}; training stops here, and the last checkpoint "
                "is of a step before. Lower config.training.learning_rate, add config.training.warmup_steps, or, if "
                "config.model.dtype is bfloat16, try float32; then start again in another --workdir"
            )
    recorder.advance(step, values["loss"])
    if schedule.is_due(step, schedule.log_every):
        rate = {"learning_rate": float(learning_rate(step - 1))}
        recorder.write_step(step, values | rate | clock.read(num_done))


class _Clock:
    """Measures steps, and of these the time spent waiting for data; pauses are left out."""

    def __init__(self, batch_size: int, num_done: int):
        self._batch_size = batch_size
        self._values: dict[str, float] = {}
        self._restart(num_done)

    def _restart(self, num_done: int) -> None:
        self._num_done = num_done
        self._wait_s = self._pause_s = 0.0
        self._start = time.perf_counter()

    def read(self, num_done: int) -> dict[str, float]:
        """Return the speed since it was last read, given how many steps the device has completed by now.

        If it has completed none since, these are the values of that time.
        """
        num_steps = num_done - self._num_done
        if num_steps:
            elapsed = time.perf_counter() - self._start - self._pause_s
            self._values = {
                "images_per_second": num_steps * self._batch_size / elapsed,
                "data_wait_share": self._wait_s / elapsed,
            }
            self._restart(num_done)
        return self._values

    def waiting(self):
        return _Span(self, "_wait_s")

    def paused(self):
        return _Span(self, "_pause_s")


class _Span:
    """Adds the time inside of a `with` to one of the clock's sums."""

    def __init__(self, clock: _Clock, name: str):
        self._clock, self._name = clock, name

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *_) -> None:
        setattr(self._clock, self._name, getattr(self._clock, self._name) + time.perf_counter() - self._start)
