"""A profile of some training steps, which shows where their time goes (the configuration key `training.profile`)."""

import contextlib
import logging
import re
from typing import Any

import jax
from etils import epath

from pyrseg_jax.errors import UserError
from pyrseg_jax.storage.paths import local_folder

log = logging.getLogger(__name__)


def parse_steps(text: str | None, name: str = "profile") -> tuple[int, int] | None:
    """Parse the first and the last step to profile.

    Args:
      text: the option's text, like `"10:15"`; None: no profile.
      name: name of the option that holds the text, for the error message.

    Raises:
      UserError: if the text has another form, or the steps are out of order.
    """
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,9}):(\d{1,9})", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise UserError(f"{name}={text!r}: expected the first and the last step to profile, like '10:15'")
    return int(found[1]), int(found[2])


class Profiler:
    """Record a range of training steps, with everything that the host does between them.

    The trainer calls `before` and `after` around each step. As a context manager, the profiler also writes the steps recorded
    so far if the run ends early.

    Args:
      steps: the first and the last step to record; None: record nothing.
      folder: the folder for the profiles, each in a subfolder; TensorBoard's profile plugin and Perfetto read them.
      first_step: steps that the run has taken before; a warning says if the steps to record are among them.
    """

    def __init__(self, steps: tuple[int, int] | None = None, folder: epath.Path | None = None, first_step: int = 0):
        assert steps is None or folder is not None, "a profile needs a folder"
        self._steps, self._folder, self._first_step = steps, folder, first_step
        self._recording = contextlib.ExitStack()
        self._annotation: jax.profiler.StepTraceAnnotation | None = None
        self._last_step: int | None = None  # the last step recorded, while a recording is under way

    def __enter__(self) -> "Profiler":
        if self._steps is not None and self._first_step >= self._steps[1]:
            log.warning(
                "no profile is written: the steps %d … %d are already done, and the run continues after step %d",
                *self._steps,
                self._first_step,
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def before(self, step: int, state: Any) -> None:
        """Start the recording if `step` is the first to record; waits until the device has finished the earlier steps."""
        if self._steps is None:
            return
        first, last = self._steps
        if self._last_step is None and first <= step <= last:
            jax.block_until_ready(state)
            assert self._folder is not None
            place = self._recording.enter_context(local_folder(self._folder))
            jax.profiler.start_trace(str(place))
            self._last_step = step
        self._annotation = jax.profiler.StepTraceAnnotation("train", step_num=step)
        self._annotation.__enter__()

    def after(self, step: int, state: Any) -> None:
        """Stop the recording if `step` is the last to record; waits until the device has finished it."""
        if self._steps is None:
            return
        if self._annotation is not None:
            self._annotation.__exit__(None, None, None)
            self._annotation = None
        if self._last_step is None:
            return
        self._last_step = step
        if step == self._steps[1]:
            jax.block_until_ready(state)
            self._stop()

    def _stop(self) -> None:
        if self._last_step is None or self._steps is None:
            return
        jax.profiler.stop_trace()
        self._recording.close()
        log.info("a profile of steps %d … %d is in %s", self._steps[0], self._last_step, self._folder)
        self._last_step = None
