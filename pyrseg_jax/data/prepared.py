"""Data sets that TFDS prepares once and keeps as ArrayRecord files."""

import contextlib
import csv
import fcntl
import io
import json
import logging
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import tensorflow_datasets as tfds

from pyrseg_jax.data.archive import open_archive
from pyrseg_jax.data.download import fetch
from pyrseg_jax.data.native import CHECKSUMS, ORIGIN, SURVEYS, NativeBuilder
from pyrseg_jax.data.pairs import ArchiveSource
from pyrseg_jax.data.report import Checksums, Survey
from pyrseg_jax.data.source import Record
from pyrseg_jax.errors import UserError

log = logging.getLogger(__name__)
OFFLINE = tfds.download.DownloadConfig(try_download_gcs=False)


def prepare(make_builder: Callable[[str], tfds.core.DatasetBuilder], data_dir: str | None) -> tfds.core.DatasetBuilder:
    """Return the builder of a data set, prepared if it was not yet.

    TFDS prepares into a temporary folder that it renames at the end: an interrupted preparation is begun anew, never taken
    for complete. Of several processes that need a data set one prepares it, and the others wait.

    Args:
      make_builder: data_dir → the builder.
      data_dir: folder that keeps prepared data sets; None for TFDS's own place.

    Raises:
      UserError: if the folder cannot be written.
    """
    builder = make_builder(str(_store(data_dir)))
    if builder.is_prepared():
        return builder
    with _alone(_store(data_dir) / builder.name, builder.name):
        return _prepare(make_builder, data_dir)


def _prepare(make_builder: Callable[[str], tfds.core.DatasetBuilder], data_dir: str | None) -> tfds.core.DatasetBuilder:
    builder = make_builder(str(_store(data_dir)))
    if not builder.is_prepared():
        log.info("preparing the data set %s in %s (once)", builder.name, builder.data_dir)
        if not sys.stderr.isatty():  # in a log file its bars are noise
            tfds.disable_progress_bar()
        try:
            # What TFDS prints is said in the line above; standard output is for results.
            with contextlib.redirect_stdout(io.StringIO()):
                builder.download_and_prepare(file_format="array_record", download_config=OFFLINE)
        except OSError as error:
            raise UserError(
                f"{builder.data_dir}: the data set {builder.name} cannot be prepared there ({error}); "
                "choose another folder with --config.data.prepared=FOLDER"
            ) from error
    return builder


def find_files(builder_class: type[NativeBuilder], root: str | None, data_dir: str | None) -> dict[str, ArchiveSource]:
    """List the splits in the user's files; without any, in the published file, which is downloaded."""
    root = root or str(fetch(builder_class.PUBLISHED, _store(data_dir) / "downloads"))
    archive = open_archive(root, builder_class.MARKERS, builder_class.ZIP_NAMES, builder_class.name)
    splits = builder_class.list_splits(archive)
    counts = {split: len(source) for split, source in splits.items()}
    if counts != builder_class.NUM_IMAGES:
        log.warning(
            "%s holds %s; published are %s: results on this selection do not compare",
            archive.place(), _word(counts), _word(builder_class.NUM_IMAGES),
        )  # fmt: skip
    return splits


def prepare_files(
    builder_class: type[NativeBuilder], root: str | None, data_dir: str | None, num_workers: int | None = None
) -> Path:
    """Return the folder of a data set that comes as files, prepared if these files were not yet.

    Each state of the files has a folder of its own: a changed file leads to a new preparation, and nothing prepared before is
    lost. Without `root`, a whole published set that was prepared before is taken, wherever its files came from.

    Raises:
      UserError: for files that are missing or bad, a download that fails, or a folder that cannot be written.
    """
    store = _store(data_dir)
    if needs_no_files(builder_class, root, data_dir):
        return _find_whole(store, builder_class)
    splits = find_files(builder_class, root, data_dir)
    key = builder_class.key(splits)
    place = next(iter(splits.values())).place()
    final = store / builder_class.name / key / str(builder_class.VERSION)
    staging = store / builder_class.name / "unfinished"

    def make_builder(folder: str) -> NativeBuilder:
        config = tfds.core.BuilderConfig(name=key, description=f"files of {place}")
        return builder_class(
            splits=splits, place=place, staging=staging, num_workers=num_workers, config=config, data_dir=folder,
            file_format="array_record",
        )  # fmt: skip

    if not (final / ORIGIN).is_file():
        with _alone(store / builder_class.name, builder_class.name):
            if not (final / ORIGIN).is_file():
                _prepare(make_builder, data_dir)
                shutil.rmtree(staging, ignore_errors=True)
    return final


def needs_no_files(builder_class: type[NativeBuilder], root: str | None, data_dir: str | None) -> bool:
    """Tell whether the whole published set was prepared before, and no other files are named."""
    return root is None and _find_whole(_store(data_dir), builder_class) is not None


def open_prepared(folder: Path) -> tfds.core.DatasetBuilder:
    """Open what `prepare_files` prepared.

    Raises:
      UserError: if files of it are missing or damaged.
    """
    try:
        return tfds.builder_from_directory(folder)
    except (OSError, ValueError, AssertionError) as error:
        raise UserError(f"{folder} is damaged ({error}): delete it, and it is prepared again") from error


def read_surveys(folder: Path) -> dict[str, Survey]:
    """Read what the files held when they were prepared, by split."""
    values = json.loads((folder / SURVEYS).read_text())
    return {split: Survey.from_json(survey) for split, survey in values.items()}


def read_checksums(
    builder_class: type[NativeBuilder], splits: dict[str, ArchiveSource], data_dir: str | None
) -> dict[str, Checksums]:
    """Read the checksums, by split, that were recorded when just these files (by size and time) were prepared."""
    path = _store(data_dir) / builder_class.name / builder_class.key(splits) / str(builder_class.VERSION) / CHECKSUMS
    recorded: dict[str, Checksums] = {}
    if path.is_file():
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                recorded.setdefault(row["split"], {})[row["name"]] = (row["image_sha256"], row["label_sha256"])
    return recorded


class PreparedSource:
    """Random access to one split of a prepared data set, as undecoded records: see `decode.decode_pair`."""

    def __init__(self, builder: tfds.core.DatasetBuilder, split: str):
        if split not in builder.info.splits:
            raise UserError(
                f"the data set {builder.name} has no split {split!r}: expected one of {', '.join(builder.info.splits)}"
            )
        raw = {"image": tfds.decode.SkipDecoding(), "label": tfds.decode.SkipDecoding()}
        self._records = builder.as_data_source(split, decoders=raw)
        self._where = f"{builder.name}/{split}"
        self._folder = str(builder.data_dir)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Record:
        try:
            record = self._records[index]
        # ArrayRecord and Protocol Buffers raise whatever the damaged bytes lead to.
        except Exception as error:
            raise UserError(
                f"record {index} of {self._where} in {self._folder} cannot be read ({type(error).__name__}: {error}): the "
                "prepared files are damaged; delete that folder, and it is prepared again"
            ) from error
        name = record["name"].decode() if isinstance(record["name"], bytes) else record["name"]
        where = f"{self._where}/{name}"
        return {
            "image": record["image"],
            "label": record["label"],
            "image_name": f"{where} (image)",
            "label_name": f"{where} (label)",
            "name": name,
        }

    def __repr__(self) -> str:
        return f"PreparedSource({self._where}, {len(self)} records)"


def _word(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {split} images" for split, count in counts.items())


def _store(data_dir: str | None) -> Path:
    return Path(data_dir or tfds.core.constants.DATA_DIR).expanduser()


def _find_whole(store: Path, builder_class: type[NativeBuilder]) -> Path | None:
    """Find the newest preparation of the whole published set."""
    origins = (store / builder_class.name).glob(f"*/{builder_class.VERSION}/{ORIGIN}")
    for origin in sorted(origins, key=lambda path: path.stat().st_mtime, reverse=True):
        if json.loads(origin.read_text())["is_whole"]:
            return origin.parent
    return None


@contextlib.contextmanager
def _alone(folder: Path, name: str) -> Iterator[None]:
    """Let one process at a time prepare a data set."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                log.info("another process prepares %s in %s: waiting for it", name, folder)
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield
    except OSError as error:
        if isinstance(error, PermissionError) or error.filename == str(folder):
            raise UserError(
                f"{folder}: the data set {name} cannot be prepared there ({error.strerror}); "
                "choose another folder with --config.data.prepared=FOLDER"
            ) from error
        raise
