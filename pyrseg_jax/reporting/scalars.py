"""Scalars for TensorBoard."""

import time
from pathlib import Path

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar

FLUSH_EVERY_S = 60.0


class Scalars:
    """Write one file of events.

    Differs: tensorboardX's `SummaryWriter` hands events to a thread. When that dies, of a full disk for example, the next
    events wait for it for ever; here the one who writes gets the error.

    Args:
      folder: gets the file, and is made if need be.
      purge_step: TensorBoard hides events of other files in the folder from this step on.
    """

    def __init__(self, folder: Path, purge_step: int):
        folder.mkdir(parents=True, exist_ok=True)
        self._file = EventsWriter(str(folder / "events"))
        self._file.write_event(Event(wall_time=time.time(), step=purge_step, file_version="brain.Event:2"))
        start = SessionLog(status=SessionLog.START)
        self._file.write_event(Event(wall_time=time.time(), step=purge_step, session_log=start))
        self.flush()

    def add(self, name: str, value: float, step: int) -> None:
        """Write a value; raises OSError if the disk does not take it."""
        now = time.time()
        self._file.write_event(Event(wall_time=now, step=step, summary=scalar(name, value)))
        if now > self._flushed + FLUSH_EVERY_S:
            self.flush()

    def flush(self) -> None:
        """Bring everything to disk, for those who watch."""
        self._flushed = time.time()
        self._file.flush()

    def close(self) -> None:
        """Finish the file."""
        self._file.close()
