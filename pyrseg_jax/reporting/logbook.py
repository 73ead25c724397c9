"""The record of a run: `metrics.jsonl`, TensorBoard, and what scrolls by on the terminal."""

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
from tqdm import tqdm

from pyrseg_jax.errors import UserError
from pyrseg_jax.reporting.scalars import Scalars
from pyrseg_jax.storage.paths import is_remote, upload_folder

log = logging.getLogger(__name__)
METRICS = "metrics.jsonl"


class Logbook:
    """Write down a run step by step.

    A run that is continued continues its record: lines of steps that are going to be taken again are removed, so that
    every step stands there once.

    Args:
      workdir: gets `metrics.jsonl` and `tensorboard/`.
      num_steps: of the whole run, and
      batch_size: of each, for the estimate of the time left.
      first_step: steps that were taken before.

    All that writes raises UserError if the disk does not take it.
    """

    def __init__(self, workdir: epath.PathLike, num_steps: int, batch_size: int, first_step: int = 0):
        workdir = epath.Path(workdir)
        self._bucket = workdir if is_remote(workdir) else None
        # Nothing can be appended to an object in a bucket: the record grows on this disk, and is copied.
        self._folder = Path(tempfile.mkdtemp() if self._bucket else workdir)
        kept = _lines_until(workdir / METRICS, first_step)
        partial = self._folder / f"{METRICS}.partial"
        partial.write_text(kept, encoding="utf-8")
        partial.replace(self._folder / METRICS)
        self._file = (self._folder / METRICS).open("a", encoding="utf-8")
        self._tensorboard = Scalars(self._folder / "tensorboard", purge_step=first_step + 1)
        self._num_steps, self._batch_size = num_steps, batch_size
        self._miou: float | None = None
        is_terminal = sys.stderr.isatty()
        self._bar = tqdm(total=num_steps, initial=first_step, unit="step", dynamic_ncols=True) if is_terminal else None

    def advance(self, step: int, loss: float) -> None:
        """Tell that a step has ended; moves the bar, where there is one."""
        if self._bar is not None:
            self._bar.n = step
            self._bar.set_postfix_str(f"loss {loss:.3f}, mIoU {self._miou_text()}", refresh=False)
            self._bar.update(0)

    def write_step(self, step: int, values: Mapping[str, float]) -> None:
        """Write one line of `metrics.jsonl` and the same to TensorBoard; to the terminal if there is no bar."""
        with self._writing():
            self._file.write(json.dumps({"step": step, **values}) + "\n")
            self._file.flush()
            for name, value in values.items():
                self._tensorboard.add(f"training/{name}", value, step)
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
        """Write the scores of an evaluation to TensorBoard and the terminal."""
        self._miou = result["miou"]
        with self._writing():
            for name in ("miou", "pixel_accuracy", "mean_accuracy"):
                if result[name] is not None:
                    self._tensorboard.add(f"evaluation/{name}", result[name], step)
            for index, share in enumerate(result["level_share"], 1):
                self._tensorboard.add(f"evaluation/level_share_{index}", share, step)
            self._tensorboard.flush()
        self.say(
            f"step {step}: mIoU {self._miou_text()} over {result['classes_averaged']} classes, "
            f"{result['images']} images in {result['seconds']:.0f} s"
        )

    def say(self, message: str) -> None:
        """Print a line without breaking the bar."""
        if self._bar is None:
            log.info(message)
        else:
            self._bar.write(message, file=sys.stderr)

    def sync(self) -> None:
        """Bring everything to where it stays, before a checkpoint is written that continues from here."""
        with self._writing():
            self._file.flush()
            os.fsync(self._file.fileno())
            self._tensorboard.flush()
            self._copy()

    def close(self) -> None:
        """Finish the files and the bar; a disk that takes no more is told, but hides no error that the run ends with."""
        if self._bar is not None:
            self._bar.close()
        for finish in (self._file.close, self._tensorboard.close, self._copy):
            try:
                finish()
            except OSError as error:
                log.warning(
                    "the end of the record in %s is lost (%s)", self._bucket or self._folder, error.strerror or error
                )
        if self._bucket is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"{self._bucket or self._folder}: the record cannot be written ({error.strerror or error}): make room or restore "
                "access, then start the same command again, which continues from the last checkpoint"
            ) from error

    def _copy(self) -> None:
        if self._bucket is not None:
            upload_folder(self._folder, self._bucket)

    def _miou_text(self) -> str:
        return "–" if self._miou is None else f"{100 * self._miou:.2f}"

    def _time_left(self, step: int, images_per_second: float) -> str:
        seconds = (self._num_steps - step) * self._batch_size / images_per_second
        minutes, seconds = divmod(round(seconds), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s"


class Silence:
    """A logbook that writes nothing: that of all processes but the first."""

    def advance(self, step: int, loss: float) -> None:
        """See `Logbook`, as for all below."""

    def write_step(self, step: int, values: Mapping[str, float]) -> None: ...

    def write_evaluation(self, step: int, result: Mapping) -> None: ...

    def sync(self) -> None: ...

    def say(self, message: str) -> None: ...

    def close(self) -> None: ...


def _lines_until(path: epath.Path, last_step: int) -> str:
    """Return the lines of a file of metrics without those of later steps and a last line that was cut off."""
    if not path.exists():
        return ""
    kept = {}
    for line in path.read_bytes().decode(errors="replace").splitlines():
        try:
            step = json.loads(line)["step"]
        except (json.JSONDecodeError, KeyError, TypeError):
            continue
        if step <= last_step:
            kept[step] = line + "\n"
    return "".join(kept.values())
