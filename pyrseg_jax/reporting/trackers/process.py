"""The process of one tracker: `python -m pyrseg_jax.reporting.trackers.process MODULE NAME FOLDER`.

It delivers events until the last one, or until the training is gone, which it notices when its standard input ends. What cannot
be delivered is tried again, later and later.
"""

import contextlib
import importlib
import os
import sys
import threading
import time
import traceback
from pathlib import Path

from pyrseg_jax.errors import reason_of
from pyrseg_jax.reporting.trackers.contract import About, Sink
from pyrseg_jax.reporting.trackers.spool import ABOUT, Event, read_events, read_progress, write_progress
from pyrseg_jax.storage import documents

POLL_S = 0.2
LONGEST_WAIT_S = 60.0
GRACE_S = 20.0  # after the end of the training; a library that still blocks then ends with the process
TOO_LATE = 3  # the exit status


class Delivery:
    """Hands the events of a run to a tracker.

    Args:
      sink: the tracker.
      name: of the tracker.
      folder: of the events.

    Attributes:
      is_finished: whether the last event says that the run is finished.
    """

    def __init__(self, sink: Sink, name: str, folder: Path):
        self._sink, self._name, self._folder = sink, name, folder
        self._progress = self._saved = read_progress(folder, name)
        self._is_open = self.is_finished = False

    def deliver(self) -> None:
        """Deliver what there is; raises whatever the tracker raises, and continues at the same event the next time."""
        if not self._is_open:
            about = documents.read_json(self._folder / ABOUT, About)
            self._change(run=self._sink.open(about, self._progress.run))
            self._save()
            self._is_open = True
        saved_at = time.monotonic()
        for event, offset in read_events(self._folder, self._progress.offset):
            if event is not None:
                self._hand_over(event)
            self._change(offset=offset, problem=None)
            if time.monotonic() > saved_at + 1:
                self._save()
                saved_at = time.monotonic()
        self._change(problem=None)
        self._save()

    def close(self, is_finished: bool) -> None:
        """End the tracker's run; nothing follows."""
        if self._is_open:
            self._sink.close(is_finished)

    def fail(self, error: Exception) -> None:
        """Record why an attempt failed, for the training."""
        self._change(problem=reason_of(error))
        self._save()

    def _hand_over(self, event: Event) -> None:
        if event.kind == "values":
            self._sink.write(event.values, event.step)
        elif event.kind == "picture" and (self._folder / event.file).is_file():
            self._sink.draw(event.name, self._folder / event.file, event.step)
        self.is_finished = event.is_finished  # events of an earlier part may stand before

    def _change(self, **values) -> None:
        self._progress = self._progress.model_copy(update=values)

    def _save(self) -> None:
        if self._progress != self._saved:
            write_progress(self._folder, self._name, self._progress)
            self._saved = self._progress


def deliver_until_end(delivery: Delivery, has_ended: threading.Event) -> int:
    """Deliver events as they come; return the exit status.

    Args:
      delivery: the delivery.
      has_ended: set when the training is gone.
    """
    wait_s = 1.0
    while True:
        is_last = has_ended.is_set()  # asked first, so that nothing is missed
        try:
            delivery.deliver()
            wait_s = 1.0
            if is_last:
                delivery.close(delivery.is_finished)
                return 0
            has_ended.wait(POLL_S)
        except Exception as error:
            traceback.print_exc()
            with contextlib.suppress(OSError):
                delivery.fail(error)
            if is_last:
                return 1
            has_ended.wait(wait_s)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)


def main(module: str, name: str, folder: str) -> int:
    """Run the process of a tracker; arguments are those of the command."""
    with contextlib.suppress(OSError):
        os.nice(5)  # the training comes first
    has_ended = threading.Event()

    def watch() -> None:
        sys.stdin.buffer.read()
        has_ended.set()
        time.sleep(GRACE_S)
        os._exit(TOO_LATE)

    threading.Thread(target=watch, daemon=True).start()
    try:
        sink = importlib.import_module(module).make_sink()
    except Exception as error:  # a library that is broken fails in any way
        traceback.print_exc()
        progress = read_progress(Path(folder), name)
        write_progress(Path(folder), name, progress.model_copy(update={"problem": reason_of(error)}))
        return 1
    return deliver_until_end(Delivery(sink, name, Path(folder)), has_ended)


if __name__ == "__main__":
    status = main(*sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # libraries register functions for the exit that may wait forever
