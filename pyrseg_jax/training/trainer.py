"""The training loop: next batch → step → save → evaluate, until the last step or until the score no longer improves."""

import contextlib
import dataclasses
import logging
import math
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, Protocol, runtime_checkable

import jax
import numpy as np
import optax

from pyrseg_jax.errors import UserError
from pyrseg_jax.training.checkpoint import Checkpoints
from pyrseg_jax.training.clock import Clock
from pyrseg_jax.training.preemption import Phase, Preempted, Preemption
from pyrseg_jax.training.profile import Profiler
from pyrseg_jax.training.stalls import StallWatch
from pyrseg_jax.training.step import Metrics, StepFunction, TrainState
from pyrseg_jax.training.stopping import EarlyStopping

log = logging.getLogger(__name__)

HostBatch = dict[str, np.ndarray]
DeviceBatch = dict[str, jax.Array]


@runtime_checkable
class Recorder(Protocol):
    """The interface through which the trainer writes metrics and scores; see `reporting.logbook.Logbook`."""

    def advance(self, step: int, loss: float) -> None: ...

    def write_step(self, step: int, values: Mapping[str, float]) -> None: ...

    def write_evaluation(self, step: int, result: Mapping) -> None: ...

    def write_end(self, step: int, reason: str) -> None: ...

    def sync(self) -> None: ...


@runtime_checkable
class Batches(Protocol):
    """Training batches on the host, and the number of unreadable records that were skipped; see `data.pipeline`."""

    num_skipped: int

    def __next__(self) -> HostBatch: ...

    def close(self) -> None: ...


@dataclasses.dataclass(frozen=True)
class Schedule:
    """When the trainer logs, evaluates and saves, in steps.

    Attributes:
      last_step: the step to end at.
      batch_size: images per step over all devices, for the speed.
      log_every, evaluate_every, save_every: intervals. The last step is always logged, evaluated and saved.
    """

    last_step: int
    batch_size: int
    log_every: int
    evaluate_every: int
    save_every: int

    def is_logged(self, step: int) -> bool:
        """Return whether the metrics of this step are written."""
        return self._is_due(step, self.log_every)

    def is_evaluated(self, step: int) -> bool:
        """Return whether the state after this step is evaluated."""
        return self._is_due(step, self.evaluate_every)

    def is_saved(self, step: int) -> bool:
        """Return whether the state after this step is saved; a state is also saved before it is evaluated."""
        return self._is_due(step, self.save_every) or self.is_evaluated(step)

    def _is_due(self, step: int, every: int) -> bool:
        return step % every == 0 or step == self.last_step


@dataclasses.dataclass
class Trainer:
    """Trains a network: `trainer.fit(state)`.

    Attributes:
      train_step: (state, batch on devices) → (state, metrics); see `step.make_train_step`.
      open_batches: number of steps taken → batches, beginning with that of the next step.
      to_devices: batch on the host → sharded batch.
      evaluate: (step, state) → scores; one of them decides which checkpoint is the best.
      checkpoints: the store for states and for that score of each evaluated step.
      recorder: the interface that receives the metrics and the scores.
      learning_rate: step → the optimizer's learning rate, for the record.
      schedule: when to log, evaluate and save.
      preemption: the handler of SIGTERM; it is asked after each step whether to save and exit.
      stalls: the watchdog that reports steps that do not finish.
      profiler: the profiler, which is notified before and after each step.
      stopping: the rule that ends the training before the last step.
      last_evaluation: the scores of the last evaluation; empty before the first one.
      stop_reason: why the training ended before the last step; None if it did not.
    """

    train_step: StepFunction
    open_batches: Callable[[int], Batches]
    to_devices: Callable[[HostBatch], DeviceBatch]
    evaluate: Callable[[int, TrainState], dict[str, Any]]
    checkpoints: Checkpoints
    recorder: Recorder
    learning_rate: optax.Schedule
    schedule: Schedule
    preemption: Preemption = dataclasses.field(default_factory=Preemption)
    stalls: StallWatch = dataclasses.field(default_factory=StallWatch)
    profiler: Profiler = dataclasses.field(default_factory=Profiler)
    stopping: EarlyStopping = EarlyStopping()
    last_evaluation: dict[str, Any] = dataclasses.field(default_factory=dict)
    stop_reason: str | None = None

    def fit(self, state: TrainState) -> TrainState:
        """Train from the state's step to the schedule's last step, or until `stopping` ends it; return the final state.

        Args:
          state: the state to start from. The steps take over its memory, so the caller must not use it afterwards.

        Raises:
          UserError: naming the step, if the loss or the gradient is not finite; nothing is saved from that step on. Also if a
            batch cannot be read or a checkpoint cannot be written.
          Preempted: after SIGTERM, once the state is saved.
        """
        first_step, schedule = int(state.step), self.schedule
        self._clock = Clock(schedule.batch_size, first_step)
        self._pending: tuple[int, Metrics] | None = None  # a step whose metrics are still on the device
        self.preemption.is_written = lambda: not self.checkpoints.is_writing()
        if first_step >= schedule.last_step:
            log.info("step %d is already done: nothing is left to train", first_step)
            self._evaluate(first_step, state)
            return state
        if self._is_over(first_step):
            return state
        with contextlib.closing(self.open_batches(first_step)) as self._batches, self.stalls, self.profiler:
            # An earlier part of the run may have ended after saving this state and before evaluating it.
            if first_step and schedule.is_evaluated(first_step) and not self.checkpoints.is_scored(first_step):
                self._evaluate(first_step, state)
                if self._is_over(first_step):
                    return state
            for step in range(first_step + 1, schedule.last_step + 1):
                is_first = step == first_step + 1
                batch = self._next_batch(step, state, is_first)
                if is_first:
                    log.info("compiling the training step (kept for the next run)")
                with self.stalls.watching(f"computing step {step}, or the one before", is_first=is_first):
                    self.profiler.before(step, state)
                    state, metrics = self.train_step(state, batch)
                    self.profiler.after(step, state)
                    self._record_later(step, metrics, is_first)
                self.checkpoints.check()
                is_preempted = self.preemption.reached(step)
                # Save before evaluating: if the run ends during a long evaluation, the step is not lost.
                if is_preempted or schedule.is_saved(step):
                    self._save(step, state)
                if is_preempted:
                    self._exit()
                if schedule.is_evaluated(step):
                    self._evaluate(step, state)
                    if step < schedule.last_step and self._is_over(step):
                        break
            self._finish_writing()
        return state

    def _next_batch(self, step: int, state: TrainState, is_first: bool) -> DeviceBatch:
        with self.stalls.watching(f"waiting for the data of step {step}"), self._clock.waiting():
            try:
                return self.to_devices(next(self._batches))
            except UserError:
                # A scheduler may signal a whole process group: then the workers that read the data are gone by now.
                if not self.preemption.has_come or is_first:
                    raise
                self._save(step - 1, state)
                self._exit()

    def _record_later(self, step: int, metrics: Metrics, is_first: bool) -> None:
        """Record the metrics of the step before, and keep these for the next call.

        Reading metrics waits for their step. One step late, the device already computes the next step in the meantime.
        """
        is_done = metrics["loss"].is_ready()  # pyright: ignore[reportAttributeAccessIssue]  # missing from jax's stubs
        self._record_pending(num_done=step if is_done else step - 1)
        self._pending = step, metrics
        if is_first:
            jax.block_until_ready(metrics)
            self._clock.read(step)  # restarts the measurement: the compilation does not count as speed
            self.preemption.phase = Phase.TRAINING

    def _record_pending(self, num_done: int) -> None:
        """Record the metrics that are still on the device, if any; `num_done` steps are complete on the device."""
        if self._pending is None:
            return
        step, metrics = self._pending
        self._pending = None
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        _check_finite(step, values)
        self.recorder.advance(step, values["loss"])
        if self.schedule.is_logged(step):
            values["learning_rate"] = float(np.asarray(self.learning_rate(step - 1)))
            skipped = {"skipped_records": self._batches.num_skipped}
            self.recorder.write_step(step, values | self._clock.read(num_done) | skipped)

    def _save(self, step: int, state: TrainState) -> None:
        with self.stalls.watching(f"computing step {step}"):
            self._record_pending(num_done=step)  # raises before a state with a loss that is not finite is saved
        # The first save compiles the checksums, and each one waits until the previous checkpoint is on disk.
        with self._clock.paused(), self.stalls.watching(f"saving step {step}", is_first=True):
            self.recorder.sync()
            self.checkpoints.save(step, state)

    def _evaluate(self, step: int, state: TrainState) -> None:
        """Evaluate a saved state; SIGTERM interrupts the evaluation, and the run ends once the state is on disk."""
        with self._clock.paused():
            try:
                with self.preemption.evaluating():
                    self.last_evaluation = self.evaluate(step, state)
                    self.recorder.write_evaluation(step, self.last_evaluation)
            except Preempted:
                self._exit()
            self.checkpoints.score(step, self.last_evaluation[self.checkpoints.scores.metric])

    def _is_over(self, step: int) -> bool:
        """Return whether the scores so far end the training at this step, and say why."""
        self.stop_reason = self.stopping.reason(self.checkpoints.scores)
        if self.stop_reason is not None:
            log.info("training ends at step %d: %s", step, self.stop_reason)
            self.recorder.write_end(step, self.stop_reason)
        return self.stop_reason is not None

    def _exit(self) -> NoReturn:
        self._finish_writing()
        raise Preempted

    def _finish_writing(self) -> None:
        with self.stalls.watching("writing the last checkpoint"):
            self.checkpoints.wait()


def _check_finite(step: int, values: dict[str, float]) -> None:
    for name in ("loss", "gradient_norm"):
        if not math.isfinite(values[name]):
            raise UserError(
                f"step {step}: the {name.replace('_', ' ')} is {values[name]}; training stops here, and the last checkpoint is "
                "from an earlier step. Lower the learning rate (learning_rate), add a warm-up (warmup_steps), or, if the "
                "network computes in bfloat16, use dtype=float32; then start again in another workdir"
            )
