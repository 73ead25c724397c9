"""The loop: next batch → step → (save → evaluate) where they are due, until the last step."""

import dataclasses
import logging
import math
from collections.abc import Callable, Iterator
from typing import Protocol, runtime_checkable

import jax
import numpy as np

from pyrseg_jax.errors import UserError
from pyrseg_jax.training.checkpoint import Checkpoints
from pyrseg_jax.training.clock import Clock
from pyrseg_jax.training.preemption import Phase, Preempted, Preemption
from pyrseg_jax.training.stalls import StallWatch
from pyrseg_jax.training.step import Metrics, StepFunction, TrainState

log = logging.getLogger(__name__)


@runtime_checkable
class Recorder(Protocol):
    """Where the loop writes to; `reporting.logbook.Logbook` is one."""

    def advance(self, step: int, loss: float) -> None: ...

    def write_step(self, step: int, values: dict[str, float]) -> None: ...

    def sync(self) -> None: ...


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
    preemption: Preemption | None = None,
    stalls: StallWatch | None = None,
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
      preemption: asked after each step whether to save and end.
      stalls: is told what is being done.

    Raises:
      UserError: naming the step, if the loss or the gradient is not finite: nothing is saved from that step on; or if a
        checkpoint cannot be written.
      Preempted: after SIGTERM, when the state is saved.
    """
    loop = _Loop(
        state,
        train_step,
        batches,
        to_devices,
        evaluate,
        checkpoints,
        recorder,
        learning_rate,
        schedule,
        preemption or Preemption(),
        stalls or StallWatch(),
    )
    return loop.run()


@dataclasses.dataclass
class _Loop:
    """What `run_loop` works with; the first fields are its arguments."""

    state: TrainState
    train_step: StepFunction
    batches: Iterator[dict[str, np.ndarray]]
    to_devices: Callable[[dict[str, np.ndarray]], dict[str, jax.Array]]
    evaluate: Callable[[int, TrainState], float | None]
    checkpoints: Checkpoints
    recorder: Recorder
    learning_rate: Callable[[int], float]
    schedule: Schedule
    preemption: Preemption
    stalls: StallWatch

    def __post_init__(self):
        self.first_step = int(self.state.step)
        self.clock = Clock(self.schedule.batch_size, self.first_step)
        self.pending: tuple[int, Metrics] | None = None  # of a step whose metrics were not fetched yet
        self.preemption.is_written = lambda: not self.checkpoints.is_writing()

    def run(self) -> TrainState:
        """Take all steps."""
        is_due, schedule, first_step = self.schedule.is_due, self.schedule, self.first_step
        # The run was ended between saving this state and having evaluated it.
        if first_step and is_due(first_step, schedule.evaluate_every) and not self.checkpoints.is_scored(first_step):
            self._score(first_step)
        for step in range(first_step + 1, schedule.last_step + 1):
            self._take(step)
            self.checkpoints.check()
            is_preempted = self.preemption.reached(step)
            is_evaluated = is_due(step, schedule.evaluate_every)
            if is_preempted or is_evaluated or is_due(step, schedule.save_every):
                # Before it is evaluated, which may take long: an end in the middle of that loses nothing.
                self._save(step)
            if is_preempted:
                self._end()
            if is_evaluated:
                self._score(step)
        self._wait()
        return self.state

    def _take(self, step: int) -> None:
        """Take one step: fetch its batch, start it, and read the metrics of the step before."""
        is_first = step == self.first_step + 1
        with self.stalls.watching(f"waiting for the data of step {step}"), self.clock.waiting():
            batch = self._next_batch(step)
        if is_first:
            log.info("compiling the training step (kept for the next run)")
        with self.stalls.watching(f"computing step {step}, or the one before", is_first=is_first):
            self.state, metrics = self.train_step(self.state, batch)
            # Fetched one step late: while the host reads a step's metrics, the device already works on the next.
            self._record_pending(step if metrics["loss"].is_ready() else step - 1)
            self.pending = step, metrics
            if is_first:
                jax.block_until_ready(metrics)
                self.clock.read(step)  # compilation is not speed
                self.preemption.phase = Phase.TRAINING

    def _next_batch(self, step: int) -> dict[str, jax.Array]:
        try:
            return self.to_devices(next(self.batches))
        except UserError:
            # Where a whole group of processes gets the signal, those that read the data are gone by now.
            if not self.preemption.has_come or step == self.first_step + 1:
                raise
            self._save(step - 1)
            self._end()
            raise

    def _save(self, step: int) -> None:
        with self.stalls.watching(f"computing step {step}"):
            self._record_pending(step)  # raises before a bad state is saved
        # The first time its checksums are compiled; an earlier checkpoint has to be on disk before this one is begun.
        with self.clock.paused(), self.stalls.watching(f"saving step {step}", is_first=True):
            self.recorder.sync()
            self.checkpoints.save(step, self.state)

    def _score(self, step: int) -> None:
        """Evaluate; a SIGTERM meanwhile ends the run when the state is on disk."""
        with self.clock.paused():
            try:
                with self.preemption.evaluating():
                    miou = self.evaluate(step, self.state)
            except Preempted:
                self._end()
            self.checkpoints.score(step, miou)

    def _end(self) -> None:
        self._wait()
        raise Preempted

    def _wait(self) -> None:
        with self.stalls.watching("writing the last checkpoint"):
            self.checkpoints.wait()

    def _record_pending(self, num_done: int) -> None:
        if self.pending is not None:
            _record(*self.pending, num_done, self.clock, self.recorder, self.learning_rate, self.schedule)
            self.pending = None


def _record(
    step: int,
    metrics: Metrics,
    num_done: int,
    clock: "Clock",
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
