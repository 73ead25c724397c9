"""The record of a run: `metrics.jsonl`, TensorBoard events, progress on the terminal, and what trackers get."""

import contextlib
import json
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from etils import epath
from PIL import Image
from tqdm import tqdm

from pyrseg_jax.errors import UserError
from pyrseg_jax.reporting.evaluation_values import values_of_evaluation
from pyrseg_jax.reporting.metrics_file import lines_until
from pyrseg_jax.reporting.scalars import Scalars
from pyrseg_jax.reporting.trackers.forwarding import Tracked, open_trackers
from pyrseg_jax.storage.atomic import write_bytes_atomically
from pyrseg_jax.storage.paths import is_remote, upload_folder

log = logging.getLogger(__name__)
METRICS, TRACKING = "metrics.jsonl", "tracking"


class Logbook:
    """Records a run step by step.

    A resumed run continues its record. Lines of steps that will be trained again are removed first, so that each step appears
    once. The methods raise UserError if the disk rejects what they write.

    Args:
      workdir: the folder for `metrics.jsonl` and `tensorboard/`.
      num_steps: number of steps of the whole run, for the progress bar and the time left.
      batch_size: images per step, for the time left.
      first_step: number of steps taken before.
      tracked: what trackers are told about the run, and which ones; None: there are none.
    """

    def __init__(
        self,
        workdir: epath.PathLike,
        num_steps: int,
        batch_size: int,
        first_step: int = 0,
        tracked: Tracked | None = None,
    ):
        workdir = epath.Path(workdir)
        self._remote = workdir if is_remote(workdir) else None
        # Objects in remote storage cannot be appended to, so the record grows in a local folder and is uploaded by `sync`.
        self._folder = Path(tempfile.mkdtemp() if self._remote else workdir)
        with self._writing():
            kept = lines_until(workdir / METRICS, first_step)
            write_bytes_atomically(self._folder / METRICS, kept)
            self._last_line = kept.splitlines()[-1] if kept else b"{}"
            self._file = (self._folder / METRICS).open("a", encoding="utf-8")
            self._tensorboard = Scalars(self._folder / "tensorboard", purge_step=first_step + 1)
        self._trackers = (
            None if tracked is None else open_trackers(tracked, workdir / TRACKING, self._folder / TRACKING)
        )
        self._is_finished = first_step >= num_steps
        self._num_steps, self._batch_size = num_steps, batch_size
        self._miou: float | None = None
        is_terminal = sys.stderr.isatty()
        self._bar = tqdm(total=num_steps, initial=first_step, unit="step", dynamic_ncols=True) if is_terminal else None

    def advance(self, step: int, loss: float) -> None:
        """Move the progress bar, if there is one, after a step."""
        if self._bar is not None:
            self._bar.n = step
            self._bar.set_postfix_str(f"loss {loss:.3f}, mIoU {self._miou_text()}", refresh=False)
            self._bar.update(0)

    def write_step(self, step: int, values: Mapping[str, float]) -> None:
        """Write the metrics of a step to `metrics.jsonl` and TensorBoard, and to the log if there is no progress bar.

        Args:
          step: number of steps taken.
          values: values by name; `loss`, `images_per_second` and `data_wait_share` must be among them.
        """
        self._check_present()
        with self._writing():
            line = json.dumps({"step": step, **values})
            self._file.write(line + "\n")
            self._file.flush()
            self._last_line = line.encode()
            for name, value in values.items():
                self._tensorboard.add(f"training/{name}", value, step)
        if self._trackers is not None:
            self._trackers.write(step, {f"training/{name}": value for name, value in values.items()})
        self._is_finished = step >= self._num_steps
        if self._bar is None:
            log.info(
                "step %d/%d  loss %.3f  mIoU %s  %.1f images/s  waited for data %.0f %%  %s left",
                step,
                self._num_steps,
                values["loss"],
                self._miou_text(),
                values["images_per_second"],
                100 * values["data_wait_share"],
                self._time_left(step, values["images_per_second"]),
            )
        else:
            self._bar.set_description_str(f"{values['images_per_second']:.1f} images/s", refresh=False)

    def write_evaluation(self, step: int, result: Mapping) -> None:
        """Write the scores of an evaluation to TensorBoard and the terminal, and the validation loss to `metrics.jsonl`, too.

        Args:
          step: the evaluated step. If its metrics were logged, the loss is added to their line.
          result: what `Evaluator` returns.
        """
        self._miou = result["miou"]
        values = values_of_evaluation(result)
        with self._writing():
            for name, value in values.items():
                self._tensorboard.add(name, value, step)
            self._tensorboard.flush()
            if result.get("loss") is not None:
                self._amend(step, {"validation_loss": result["loss"]})
        if self._trackers is not None:
            self._trackers.write(step, values)
        loss = f"loss {result['loss']:.3f}, " if result.get("loss") is not None else ""
        self.say(
            f"step {step}: {loss}mIoU {self._miou_text()} over {result['classes_averaged']} classes, "
            f"{result['images']} images in {result['seconds']:.0f} s"
        )

    @property
    def has_trackers(self) -> bool:
        """Return whether anything but the files of the run gets its record."""
        return self._trackers is not None

    def draw(self, step: int, pictures: Mapping[str, Image.Image]) -> None:
        """Write pictures by name to TensorBoard and the trackers."""
        with self._writing():
            for name, picture in pictures.items():
                self._tensorboard.draw(name, picture, step)
            self._tensorboard.flush()
        if self._trackers is not None:
            self._trackers.draw(step, pictures)

    def write_end(self, step: int, reason: str) -> None:
        """Write why the training ended before its last step into the line of this step."""
        self._is_finished = True
        self._check_present()
        with self._writing():
            self._amend(step, {"stopped": reason})

    def _amend(self, step: int, values: Mapping[str, float | str]) -> None:
        """Add values to the last line of `metrics.jsonl`, if it is that of this step: each step has one line."""
        line = json.loads(self._last_line)
        if line.get("step") != step:
            return
        amended = json.dumps(line | values).encode()
        with (self._folder / METRICS).open("r+b") as file:  # the open file can only append
            file.seek(-len(self._last_line) - 1, os.SEEK_END)
            file.write(amended + b"\n")
            file.truncate()
        self._last_line = amended

    def say(self, message: str) -> None:
        """Print a line without breaking the progress bar."""
        if self._bar is None:
            log.info(message)
        else:
            self._bar.write(message, file=sys.stderr)

    def show(self, text: str) -> None:
        """Print a text on standard output at once, without breaking the progress bar.

        Raises:
          OSError: if standard output is closed or full.
        """
        if self._bar is None:
            print(text)
        else:
            self._bar.write(text, file=sys.stdout)
        sys.stdout.flush()

    def sync(self) -> None:
        """Bring the record to its final place on disk or in remote storage.

        Call this before saving a checkpoint: a run that resumes from it continues the record from here.
        """
        self._check_present()
        with self._writing():
            self._file.flush()
            os.fsync(self._file.fileno())
            self._tensorboard.flush()
            self._upload()

    def close(self) -> None:
        """Finish the files and the progress bar.

        A full disk is only logged here, because raising would hide the error with which the run ends.
        """
        if self._bar is not None:
            self._bar.close()
        if self._trackers is not None:
            self._trackers.close(self._is_finished)
        for finish in (self._file.close, self._tensorboard.close, self._upload):
            try:
                finish()
            except OSError as error:
                log.warning(
                    "the last lines of the record in %s could not be written (%s)",
                    self._remote or self._folder,
                    error.strerror or error,
                )
        if self._remote is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _check_present(self) -> None:
        """Raise UserError if the record is not in its place any more: an open file can be written to even after its removal."""
        try:
            is_present = os.path.samestat(os.stat(self._folder / METRICS), os.fstat(self._file.fileno()))
        except OSError:
            is_present = False
        if not is_present:
            raise UserError(
                f"{self._folder / METRICS} was removed or replaced while this training wrote to it: nothing more is written; if "
                "the folder of the run is gone, start the training again"
            )

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"{self._remote or self._folder}: the record cannot be written ({error.strerror or error}): make room or restore "
                "access, then start the same command again, which continues from the last checkpoint"
            ) from error

    def _upload(self) -> None:
        if self._remote is not None:
            upload_folder(self._folder, self._remote)

    def _miou_text(self) -> str:
        return "–" if self._miou is None else f"{100 * self._miou:.2f}"

    def _time_left(self, step: int, images_per_second: float) -> str:
        seconds = (self._num_steps - step) * self._batch_size / images_per_second
        minutes, seconds = divmod(round(seconds), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s"


class SilentLogbook:
    """A logbook that writes nothing, for all processes but the first; see `Logbook` for the methods."""

    has_trackers = False

    def advance(self, step: int, loss: float) -> None: ...

    def write_step(self, step: int, values: Mapping[str, float]) -> None: ...

    def write_evaluation(self, step: int, result: Mapping) -> None: ...

    def draw(self, step: int, pictures: Mapping[str, Image.Image]) -> None: ...

    def write_end(self, step: int, reason: str) -> None: ...

    def sync(self) -> None: ...

    def say(self, message: str) -> None: ...

    def show(self, text: str) -> None: ...

    def close(self) -> None: ...
