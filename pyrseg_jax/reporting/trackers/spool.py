"""The events of a run, for its trackers: lines of JSON that the training appends and the trackers' processes read.

`tracking/` in the folder of a run has `events.jsonl`, `run.json` (`contract.About`), `NAME.json` for each tracker (`Progress`),
what its library printed in `NAME.log`, and the pictures.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from pyrseg_jax.errors import UserError
from pyrseg_jax.storage import documents
from pyrseg_jax.storage.atomic import write_atomically

EVENTS, ABOUT = "events.jsonl", "run.json"
Step = Annotated[int, Field(ge=0)]


class Event(documents.Document):
    """A line of the file.

    kind: "values" and "picture" belong to a step; "end" ends this part of the run.
    values: numbers by name.
    name, file: of a picture; the file is in the same folder.
    is_finished: at the end, whether the run is finished; otherwise it may be resumed.
    """

    kind: Literal["values", "picture", "end"]
    step: Step
    values: dict[str, float] = {}
    name: str = ""
    file: str = ""
    is_finished: bool = False


class Progress(documents.Document):
    """What a tracker's process has delivered.

    run: the name with which the tracker continues its run; None before it was started.
    offset: bytes of the file of events.
    problem: why the last attempt failed; None if it did not.
    """

    run: str | None = None
    offset: Annotated[int, Field(ge=0)] = 0
    problem: str | None = None


def read_progress(folder: Path, tracker: str) -> Progress:
    """Read what a tracker has delivered; nothing, if the file is missing or damaged."""
    try:
        return documents.read_json(folder / f"{tracker}.json", Progress)
    except (UserError, OSError):
        return Progress()


def write_progress(folder: Path, tracker: str, progress: Progress) -> None:
    """Replace the file of a tracker."""
    write_atomically(folder / f"{tracker}.json", progress.model_dump_json() + "\n")


def read_events(folder: Path, offset: int) -> Iterator[tuple[Event | None, int]]:
    """Iterate over the whole lines after an offset; yield each event and the offset after it. A damaged line is None."""
    try:
        with (folder / EVENTS).open("rb") as file:
            file.seek(offset)
            for line in file:
                if not line.endswith(b"\n"):  # it is still being written
                    return
                offset += len(line)
                try:
                    yield documents.parse_json(line, Event, EVENTS), offset
                except UserError:
                    yield None, offset
    except FileNotFoundError:
        return
