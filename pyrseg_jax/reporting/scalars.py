"""Numbers and pictures for TensorBoard."""

import io
import time
from pathlib import Path
from typing import Any

from PIL import Image

# tensorboardX is imported with the first value: it imports PyTorch where that is installed, which takes seconds, and the first
# steps of a training can run in the meantime.

FLUSH_EVERY_S = 60.0  # seconds until a new value is on disk at the latest, if values keep coming


class Scalars:
    """Writes numbers and pictures to one TensorBoard event file, which it creates with the first of them.

    Differs: tensorboardX's `SummaryWriter` writes from a thread. If that thread dies, for example because the disk is full, the
      caller waits for it forever. This class writes from the caller's thread, and the caller gets the error.

    Args:
      folder: the folder for the file; it is created if necessary.
      purge_step: TensorBoard hides events of this step and later ones from the other files in the folder.
    """

    def __init__(self, folder: Path, purge_step: int):
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._purge_step = folder, purge_step
        self._file: Any = None
        self._flushed = 0.0

    def add(self, name: str, value: float, step: int) -> None:
        """Write a value; raises OSError if the disk rejects it."""
        from tensorboardX.summary import scalar

        self._write(step, summary=scalar(name, value))
        if time.time() > self._flushed + FLUSH_EVERY_S:
            self.flush()

    def draw(self, name: str, picture: Image.Image, step: int) -> None:
        """Write a picture; raises OSError if the disk rejects it."""
        from tensorboardX.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]  # generated

        data = io.BytesIO()
        picture.save(data, "PNG")
        encoded = Summary.Image(
            height=picture.height, width=picture.width, colorspace=3, encoded_image_string=data.getvalue()
        )
        self._write(step, summary=Summary(value=[Summary.Value(tag=name, image=encoded)]))

    def flush(self) -> None:
        """Write all buffered values to disk, so that TensorBoard can show them."""
        self._flushed = time.time()
        if self._file is not None:
            self._file.flush()

    def close(self) -> None:
        """Write all buffered values and close the file."""
        if self._file is not None:
            self._file.close()

    def _write(self, step: int, **content: Any) -> None:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]  # generated

        if self._file is None:
            self._file = EventsWriter(str(self._folder / "events"))
            self._write(self._purge_step, file_version="brain.Event:2")
            self._write(self._purge_step, session_log=SessionLog(status=SessionLog.START))
        self._file.write_event(Event(wall_time=time.time(), step=step, **content))
