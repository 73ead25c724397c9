"""The evaluations of a run, in `WORKDIR/evaluation`: what identifies a result, and the name of its file.

A result is identified by its split, step, protocol and data set. `SPLIT-STEP.json` is the result of the run's own protocol and data
set; the names of all others say what is different. A result never replaces one of another identity.
"""

import hashlib
import json
import logging
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, NamedTuple

from etils import epath
from pydantic import ConfigDict, Field

from pyrseg_jax.errors import UserError
from pyrseg_jax.run import image_counts
from pyrseg_jax.storage import documents
from pyrseg_jax.storage.atomic import remove_leftovers, write_atomically
from pyrseg_jax.storage.names import file_name_of

log = logging.getLogger(__name__)

Step = Annotated[int, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]
# Keys whose values may differ between two evaluations of the same identity without being another result.
# The loss depends on the batch size by rounding.
INCIDENTAL = ("seconds", "compiled_programs", "loss")


class StoredData(documents.Document):
    """The data set of a result."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str
    split: str
    fingerprint: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class StoredResult(documents.Document):
    """The keys of `evaluation/*.json` that the package reads. Results of earlier versions do not name their data set."""

    model_config = ConfigDict(frozen=True, extra="allow")

    step: Step
    miou: Annotated[float, Field(ge=0, le=1)] | None
    protocol: dict[str, Any]
    confusion: list[list[Count]]
    images: Count
    data: StoredData | None = None


class Naming(NamedTuple):
    """What the name of a result may say, and whether it has to.

    protocol, data: parts of a file name that describe the protocol and the data set.
    is_own_protocol, is_own_data: whether they are the run's own, which need not be said.
    """

    protocol: str
    data: str
    is_own_protocol: bool
    is_own_data: bool


class Results:
    """The stored results of one run.

    Args:
      folder: `WORKDIR/evaluation`, which need not exist yet.
    """

    def __init__(self, folder: epath.Path):
        self.folder = folder

    def write(self, result: dict, naming: Naming) -> epath.Path:
        """Write a result and return the path of its file; a log line says if it replaces an earlier one of the same identity.

        Args:
          result: the scores, with `step`, `protocol` and `data`.
          naming: what the name of the file may say.

        Raises:
          UserError: if the file cannot be written.
        """
        name, before = self._choose_name(result, naming)
        path = self.folder / name
        if before is not None:
            stored = before.model_dump()
            changed = _differences(stored, result)
            if not changed and stored.get("level_miou") is not None and result["level_miou"] is None:
                log.info("%s holds the same scores already, with the analysis: it stays as it is", path)
                return path
            if changed:
                log.warning("%s replaces an earlier result that differs in %s", path, ", ".join(changed[:4]))
        try:
            self.folder.mkdir(exist_ok=True)
            remove_leftovers(self.folder)
            write_atomically(path, _to_text(result))
        except OSError as error:
            raise UserError(
                f"{path} cannot be written ({error.strerror or error}): make room or restore access, then repeat the evaluation"
            ) from error
        return path

    def holds(self, split: str, fingerprint: str) -> bool:
        """Return whether a result of the run's own data set (`SPLIT-STEP.json`) was computed from data of this fingerprint."""
        own = re.compile(rf"{re.escape(file_name_of(split))}-\d+\.json")
        for name in self._names():
            found = self._read(name) if own.fullmatch(name) else None
            if found is not None and found.data is not None and found.data.fingerprint == fingerprint:
                return True
        return False

    def of_step(self, step: int) -> list[tuple[str, StoredResult]]:
        """Return the results of a step, with the names of their files; what cannot be read is left out with a warning."""
        found = ((name, self._read(name)) for name in self._names())
        return [(name, result) for name, result in found if result is not None and result.step == step]

    def drop_after(self, step: int) -> None:
        """Remove the results of later steps: these steps will be trained again, and perhaps evaluated at other steps.

        Files that are not results stay.
        """
        for name in self._names():
            found = self._read(name)
            if found is not None and found.step > step:
                (self.folder / name).unlink()
                image_counts.path_of(self.folder / name).unlink(missing_ok=True)
                log.warning("%s was removed: the steps after %d will be trained again", self.folder / name, step)

    def _choose_name(self, result: Mapping[str, Any], naming: Naming) -> tuple[str, StoredResult | None]:
        """Choose the name of a result's file; also return the earlier result of the same identity that lies there."""
        names = list(_names_of(result, naming))
        there = {name: self._read(name) for name in self._names() if name in names}
        for name, found in there.items():  # a repeated evaluation belongs where it was before
            if found is not None and _is_same_protocol(found, result) and _is_same_data(found, result):
                return name, found
        needs_protocol, needs_data = not naming.is_own_protocol, not naming.is_own_data
        plain = names[0]
        if plain in there and not (needs_protocol or needs_data):
            found = there[plain]
            needs_protocol = found is None or not _is_same_protocol(found, result)
            needs_data = found is None or not _is_same_data(found, result)
        for name in _names_of(result, naming, needs_protocol, needs_data):
            if name not in there:
                return name, None
        raise UserError(
            f"{self.folder / names[-1]} exists and is not a result of this evaluation: move it away, then repeat the evaluation"
        )

    def _names(self) -> list[str]:
        try:
            return sorted(entry.name for entry in self.folder.iterdir() if entry.name.endswith(".json"))
        except OSError:  # there is no folder yet
            return []

    def _read(self, name: str) -> StoredResult | None:
        """Read a result; None if it cannot be read."""
        try:
            return documents.read_json(self.folder / name, StoredResult, "it is left as it is")
        except UserError as error:
            log.warning("%s", error)
            return None


def _names_of(
    result: Mapping[str, Any], naming: Naming, needs_protocol: bool = False, needs_data: bool = False
) -> Iterator[str]:
    """Yield the names that a result may have and that say what they need to say, the shortest first."""
    base = f"{file_name_of(result['data']['split'])}-{result['step']}"
    fingerprint = result["data"]["fingerprint"]
    identity = {"protocol": _protocol_of(result["protocol"]), "fingerprint": fingerprint}
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    data = f"{naming.data}-{fingerprint[:8]}"
    if not (needs_protocol or needs_data):
        yield f"{base}.json"
    if not needs_data:
        yield f"{base}-{naming.protocol}.json"
    if not needs_protocol:
        yield f"{base}-{data}.json"
    yield f"{base}-{naming.protocol}-{data}.json"
    yield f"{base}-{naming.protocol}-{data}-{digest}.json"


def _protocol_of(protocol: Mapping[str, Any]) -> dict[str, Any]:
    # What a training started from follows from the run; it does not make another protocol.
    return {name: value for name, value in protocol.items() if name != "initialisation"}


def _is_same_protocol(there: StoredResult, result: Mapping[str, Any]) -> bool:
    before, now = _protocol_of(there.protocol), _protocol_of(result["protocol"])
    # Earlier versions stored fewer keys; theirs describe the protocol in full, too.
    return bool(before) and all(now.get(name) == value for name, value in before.items())


def _is_same_data(there: StoredResult, result: Mapping[str, Any]) -> bool:
    data = result["data"]
    if there.data is not None:
        return there.data.fingerprint == data["fingerprint"] and there.data.split == data["split"]
    # A result of an earlier version: the true pixels of each class tell as much as it holds.
    return there.images == result["images"] and list(map(sum, there.confusion)) == list(map(sum, result["confusion"]))


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """List the keys of two results that differ. A key that one of them has not computed does not count."""
    common = [name for name in now if name not in (*INCIDENTAL, "data", "protocol") and name in before]
    return [name for name in common if before[name] != now[name] and before[name] is not None and now[name] is not None]


def _to_text(result: dict) -> str:
    text = json.dumps(result, indent=2)
    # Put each list of numbers on one line: a confusion matrix of 150 classes would otherwise take 22,500 lines. Names of classes
    # may hold brackets, but no line breaks.
    return re.sub(r"\[\n[^][{}\"]*\]", lambda numbers: " ".join(numbers[0].split()), text) + "\n"
