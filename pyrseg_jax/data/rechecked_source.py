"""Read a data set that an earlier version prepared: its rules accepted files that those of today may refuse."""

import hashlib
from pathlib import Path

from pyrseg_jax.data.builders import ORIGIN
from pyrseg_jax.data.prepared import PREPARE_AGAIN, PreparedSource
from pyrseg_jax.data.records import Origin
from pyrseg_jax.data.rules import RULES
from pyrseg_jax.storage import documents


class RecheckedSource(PreparedSource):
    """A split of a prepared data set that is checked like the user's files: it is a `source.FileSource`."""

    remarks: tuple[str, ...] = ()

    def fingerprint(self) -> list[str]:
        """Describe the files that hold the split, once for each record."""
        files = sorted(path for path in Path(self._folder).iterdir() if path.is_file())
        stats = [(path.name, path.stat()) for path in files]
        states = [(name, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino) for name, found in stats]
        state = hashlib.sha256(repr(states).encode()).hexdigest()
        return [f"{self._where} {index} {state}" for index in range(len(self))]

    def location(self) -> str:
        """Return the resolved folder of the data set."""
        return str(Path(self._folder).resolve())

    def place_of(self, index: int) -> str:
        """Name a record for messages, without reading it."""
        return f"record {index} of {self._where} in {self._folder}"


def is_outdated(folder: Path) -> bool:
    """Return whether a prepared data set was checked by earlier rules."""
    return documents.read_json(folder / ORIGIN, Origin, PREPARE_AGAIN).rules < RULES
