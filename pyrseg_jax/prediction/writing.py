"""Write the files of an image: all that can be drawn, each whole or not at all, and only where nothing foreign is lost."""

import errno
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from etils import epath

from pyrseg_jax.errors import UserError, naming_file, reason_of
from pyrseg_jax.prediction.listing import Item
from pyrseg_jax.prediction.manifest import Line, Manifest, Settings, Source, Written, now
from pyrseg_jax.prediction.outputs import GEOTIFF, OUTPUTS, Prediction, all_files_of, files_of
from pyrseg_jax.storage.atomic import write_bytes_atomically
from pyrseg_jax.storage.paths import is_remote
from pyrseg_jax.storage.regular_file import obstacle

# After one of these, no other file could be written either.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class Outcome(NamedTuple):
    """What came of an image.

    item: the image.
    problems: what could not be done, each as one line.
    is_earlier: whether an earlier command had finished it.
    is_last: whether no other image can be finished either.
    note: what else there is to say about it; "" for nothing.
    """

    item: Item
    problems: tuple[str, ...] = ()
    is_earlier: bool = False
    is_last: bool = False
    note: str = ""


class Writer:
    """Write predictions into an output folder.

    Args:
      folder: the output folder.
      manifest: the record of what is written there.
      settings: what decides the predictions.
      outputs: the kinds of files to write.
      overwrite: whether files that `predict` did not write may be replaced.
    """

    def __init__(
        self,
        folder: Path | epath.Path,
        manifest: Manifest,
        settings: Settings,
        outputs: tuple[str, ...],
        overwrite: bool = False,
    ):
        self.folder, self.outputs = folder, outputs
        self._manifest, self._settings, self._overwrite = manifest, settings, overwrite

    def is_finished(self, item: Item, source: Source) -> bool:
        """Return whether an earlier command finished an image, with the present settings, and nothing was changed since.

        Args:
          item: the image.
          source: its file as it is now. Without its SHA-256, an image whose time of change is another one counts as changed.
        """
        line = self._manifest.line_of(item.key)
        if line is None or line.decisive() != self._settings.decisive() or line.bytes != source.bytes:
            return False
        if source.sha256 is None and (not source.modified or line.modified != source.modified):
            return False
        if source.sha256 is not None and source.sha256 != line.sha256:
            return False
        names = files_of(item, self.outputs)
        if names.get(GEOTIFF) not in line.outputs and any(name in line.outputs for name in names.values()):
            names.pop(GEOTIFF, None)  # it lies nowhere on Earth
        return all(self._is_whole(name, line) for name in names.values())

    def write(self, found: Prediction, source: Source, started_at: float) -> list[str]:
        """Draw and write the files of an image; return what could not be drawn, each as one line.

        Args:
          found: the prediction.
          source: the file of the image, with its SHA-256.
          started_at: when work on the image began, as `time.perf_counter` counts.

        Raises:
          UserError: if a file must not be replaced, or cannot be written.
        """
        contents, problems = self._draw(found)
        names = files_of(found.item, self.outputs)
        height, width = found.segmented.labels.shape
        outputs = {names[output]: Written.of(content) for output, content in contents.items()}
        place = f"the result of {found.item.path}"
        with naming_file(place, "cannot be written", "make room, or name another folder"):
            for output, content in contents.items():
                self._check_free(names[output], content)
            self.record(found.item, source, (height, width), outputs, started_at)
            self.make_folder(found.item)
            for output, content in contents.items():
                write_bytes_atomically(self.folder / names[output], content)
            self.discard_others(found.item)
        return problems

    def record(
        self,
        item: Item,
        source: Source,
        size: tuple[int, int],
        outputs: Mapping[str, Written],
        started_at: float,
    ) -> None:
        """Add the line of an image or a video to the manifest, before its files appear.

        It also names the other files that an earlier command wrote with the same settings.
        """
        assert source.sha256 is not None
        earlier = self._manifest.line_of(item.key)
        if earlier is not None and earlier.sha256 == source.sha256 and earlier.decisive() == self._settings.decisive():
            outputs = earlier.outputs | dict(outputs)
        line = Line(
            image=item.key,
            bytes=source.bytes,
            modified=source.modified,
            sha256=source.sha256,
            height=size[0],
            width=size[1],
            outputs=dict(outputs),
            seconds=round(time.perf_counter() - started_at, 3),
            time=now(),
            **self._settings.model_dump(),
        )
        self._manifest.add(line)

    def discard_others(self, item: Item) -> None:
        """Remove files of earlier commands for an image that its line does not name: they show an earlier prediction."""
        line = self._manifest.line_of(item.key)
        if is_remote(self.folder) or line is None:
            return
        for name in set(all_files_of(item)) - set(line.outputs):
            if os.path.lexists(self.folder / name) and not self._manifest.is_foreign(name):
                (Path(self.folder) / name).unlink()

    def check_free(self, name: str, written: Written) -> None:
        """Raise UserError if there is something by now that must not be replaced by this content.

        A file with the same content may stay: in remote storage, the lines of a killed command may be missing.
        """
        path = self.folder / name
        if is_remote(path):
            if self._overwrite or not epath.Path(path).exists():
                return
            found = Written.of(path.read_bytes())
            if found == written or self._manifest.is_own(name, found):
                return
            kind = None
        else:
            kind = obstacle(Path(path))
            if not kind and (self._overwrite or not self._manifest.is_foreign(name)):
                return
        raise UserError(
            f"{path} has appeared in the meantime and is {kind or 'not a file of this command'}: it is not replaced; move it, and "
            "run the command again"
        )

    def _check_free(self, name: str, content: bytes) -> None:
        self.check_free(name, Written.of(content))

    def _draw(self, found: Prediction) -> tuple[dict[str, bytes], list[str]]:
        contents: dict[str, bytes] = {}
        problems = []
        for output, name in files_of(found.item, self.outputs).items():
            try:
                content = OUTPUTS[output].encode(found)
            except Exception as error:  # of Matplotlib, PIL or NumPy: whatever it is, the other files are good
                problems.append(
                    f"{self.folder / name} cannot be drawn ({reason_of(error)}): the other files are complete"
                )
                continue
            if content is not None:
                contents[output] = content
        return contents, problems

    def make_folder(self, item: Item) -> None:
        """Create the folder of an image's files."""
        if "/" in item.name and not is_remote(self.folder):
            (self.folder / item.name).parent.mkdir(parents=True, exist_ok=True)

    def _is_whole(self, name: str, line: Line) -> bool:
        written = line.outputs.get(name)
        if written is None:
            return False
        path = self.folder / name
        try:
            if is_remote(path):
                return epath.Path(path).stat().length == written.bytes
            if obstacle(Path(path)) or os.lstat(path).st_size != written.bytes:
                return False
            return Written.of_file(Path(path)) == written
        except OSError:
            return False


def is_full(error: BaseException) -> bool:
    """Return whether an error means that no other file could be written either."""
    return isinstance(error.__cause__, OSError) and error.__cause__.errno in FULL
