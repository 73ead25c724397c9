"""Prepare data sets once with TFDS, keep them as ArrayRecord files, and read them back."""

import contextlib
import csv
import fcntl
import io
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import tensorflow_datasets as tfds
from tensorflow_datasets.core import constants

from pyrseg_jax.data.builders import CHECKSUMS, ORIGIN, REPORTS, VERSION, PairBuilder, RenderedBuilder
from pyrseg_jax.data.file_dataset import FileDataset, Splits
from pyrseg_jax.data.label_space import LabelSpace
from pyrseg_jax.data.pairs import ArchiveSource
from pyrseg_jax.data.record_names import from_stored
from pyrseg_jax.data.records import Origin, StoredReports
from pyrseg_jax.data.report import Checksums, DatasetReport
from pyrseg_jax.data.rules import RULES
from pyrseg_jax.data.source import Record
from pyrseg_jax.data.spec import DataLocation
from pyrseg_jax.errors import UserError, naming_file
from pyrseg_jax.storage import documents
from pyrseg_jax.storage.caches import cache_folder
from pyrseg_jax.storage.lock import open_lock_file

log = logging.getLogger(__name__)
OFFLINE = tfds.download.DownloadConfig(try_download_gcs=False)
PREPARE_AGAIN = "delete this folder, and the data set is prepared again"
OLD_REPORTS = "surveys.json"  # name of the reports in folders that earlier versions prepared

MakeBuilder = Callable[[str], tfds.core.DatasetBuilder]  # folder that keeps prepared data sets → the builder


def prepare_rendered(
    name: str,
    label_space: LabelSpace,
    generators: Mapping[str, Callable[[], Iterator[tuple[str, dict]]]],
    prepared: str | None,
) -> tfds.core.DatasetBuilder:
    """Open a data set that this package renders, after preparing it if necessary.

    TFDS prepares into a temporary folder that it renames at the end, so an interrupted preparation starts again and never counts
    as complete. If several processes need the data set, one prepares it and the others wait.

    Args:
      name: the name of the data set.
      label_space: the classes.
      generators: split → function that yields (name, example) with image and label as encoded bytes.
      prepared: folder that keeps prepared data sets; None for TFDS's own.

    Raises:
      UserError: if the folder cannot be written.
    """

    def make_builder(folder: str) -> RenderedBuilder:
        return RenderedBuilder(
            name=name, label_space=label_space, generators=generators, data_dir=folder, file_format="array_record"
        )

    store = _store(prepared)
    if not make_builder(str(store)).is_prepared():
        with _one_at_a_time(store / name, name):
            _prepare(make_builder, store)
    return open_prepared(store / name / VERSION)


def _prepare(make_builder: MakeBuilder, store: Path) -> None:
    builder = make_builder(str(store))
    if builder.is_prepared():  # by another process, while this one waited
        return
    log.info("preparing the data set %s in %s (once)", builder.name, builder.data_dir)
    _remove_remains(store / builder.name)
    if not sys.stderr.isatty():  # in a log file, TFDS's progress bars would be noise
        tfds.disable_progress_bar()
    try:
        # Standard output is for results. The line above says all that TFDS would print there.
        with contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare(file_format="array_record", download_config=OFFLINE)
    except OSError as error:
        raise UserError(
            f"{builder.data_dir}: the data set {builder.name} cannot be prepared there ({error}); "
            "choose another folder with prepared=FOLDER"
        ) from error


def _remove_remains(folder: Path) -> None:
    """Remove what killed preparations of a data set have left; only the process that holds the lock may call this."""
    patterns = ("incomplete.*", "*/incomplete.*", "unfinished/*.partial")
    remains = [path for pattern in patterns for path in folder.glob(pattern)]
    for path in remains:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    if remains:
        log.info("removed %d unfinished files of a preparation that was interrupted", len(remains))


def find_files(files: FileDataset, location: DataLocation) -> dict[str, ArchiveSource]:
    """List the splits in the user's files, or else in the published files, which are downloaded."""
    archive = files.open_files(location.root or files.download(_store(location.prepared) / "downloads"))
    splits = files.list_splits(archive)
    counts = {split: len(source) for split, source in splits.items()}
    if counts != dict(files.num_images):
        log.warning(
            "%s holds %s, but %s were published: results on this selection cannot be compared with published ones",
            archive.place(), _word(counts), _word(files.num_images),
        )  # fmt: skip
    return splits


def prepare_files(files: FileDataset, location: DataLocation, num_workers: int | None = None) -> Path:
    """Return the folder of a data set that comes as files, prepared if these files were not yet.

    Each state of the files has a folder of its own: a changed file leads to a new preparation, and nothing that was prepared
    before is lost. Without a root, a complete published set that was prepared before is used, wherever its files came from.

    Args:
      files: the data set.
      location: the location of the user's files.
      num_workers: processes that check and write; by default one per core.

    Raises:
      UserError: for files that are missing or bad, a download that fails, or a folder that cannot be written.
    """
    store = _store(location.prepared)
    if location.root is None and (whole := _find_whole(files, store)) is not None:
        return whole
    splits = find_files(files, location)
    key = files.key(splits)
    place = next(iter(splits.values())).place()
    final = store / files.name / key / VERSION
    staging = store / files.name / "unfinished"

    def make_builder(folder: str) -> PairBuilder:
        config = tfds.core.BuilderConfig(name=key, description=f"files of {place}")
        return PairBuilder(
            files=files, splits=splits, place=place, staging=staging, num_workers=num_workers, config=config, data_dir=folder,
            file_format="array_record",
        )  # fmt: skip

    for remark in dict.fromkeys(remark for source in splits.values() for remark in source.remarks):  # each once
        log.warning("%s", remark)
    if not (final / ORIGIN).is_file():
        with _one_at_a_time(store / files.name, files.name):
            if not (final / ORIGIN).is_file():
                _prepare(make_builder, store)
                shutil.rmtree(staging, ignore_errors=True)
    return final


def is_published_set_prepared(files: FileDataset, location: DataLocation) -> bool:
    """Return whether the complete published set was prepared before and the user names no other files."""
    return location.root is None and _find_whole(files, _store(location.prepared)) is not None


def open_prepared(folder: Path) -> tfds.core.DatasetBuilder:
    """Open a prepared data set.

    Raises:
      UserError: if some of its files are missing or damaged.
    """
    with naming_file(str(folder), "is damaged", PREPARE_AGAIN):
        return tfds.builder_from_directory(folder)


def read_reports(folder: Path) -> dict[str, DatasetReport]:
    """Read the report of each split that was written when the data set was prepared."""
    path = folder / REPORTS
    stored = documents.read_json(path if path.is_file() else folder / OLD_REPORTS, StoredReports, PREPARE_AGAIN).root
    return {split: DatasetReport.from_json(report.model_dump()) for split, report in stored.items()}


def read_checksums(files: FileDataset, splits: Splits, location: DataLocation) -> dict[str, Checksums]:
    """Read the checksums, by split, that were recorded when files of the same place, names, sizes and times were prepared."""
    store = _store(location.prepared) / files.name
    path = store / files.key(splits) / VERSION / CHECKSUMS
    if not path.is_file():  # these files were prepared before one of them changed behind its size and time, if at all
        origins = _origins(store)
        same = (place for place, origin in origins if origin.outward_key == files.outward_key(splits))
        path = next(same, store) / CHECKSUMS
    recorded: dict[str, dict[str, tuple[str, str]]] = {}
    if path.is_file():
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                recorded.setdefault(row["split"], {})[from_stored(row["name"])] = (
                    row["image_sha256"],
                    row["label_sha256"],
                )
    return dict(recorded)


class PreparedSource:
    """Random access to one split of a prepared data set, as undecoded records for `decode.decode_pair`.

    Args:
      builder: a builder that `open_prepared` returned.
      split: name of the split.
    """

    def __init__(self, builder: tfds.core.DatasetBuilder, split: str):
        if split not in builder.info.splits:
            raise UserError(
                f"the data set {builder.name} has no split {split!r}: expected one of {', '.join(builder.info.splits)}"
            )
        raw = {"image": tfds.decode.SkipDecoding(), "label": tfds.decode.SkipDecoding()}
        self._where = f"{builder.name}/{split}"
        self._folder = str(builder.data_dir)
        with naming_file(self._folder, f"is damaged: its split {split} cannot be opened", PREPARE_AGAIN):
            # TFDS wraps the method in a decorator that hides its parameters.
            self._records = builder.as_data_source(split, decoders=raw)  # pyright: ignore[reportCallIssue]

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Record:
        # Depending on the damage, ArrayRecord and Protocol Buffers raise errors of any type, or leave a feature out.
        place = f"record {index} of {self._where} in {self._folder}"
        with naming_file(place, "cannot be read", f"the prepared files are damaged; {PREPARE_AGAIN}"):
            record = self._records[index]
            name = from_stored(record["name"].decode() if isinstance(record["name"], bytes) else record["name"])
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


def _word(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {split} images" for split, count in counts.items())


def _store(prepared: str | None) -> Path:
    """Return the folder that keeps prepared data sets: the user's choice, or that of TFDS, or one in the cache folder."""
    folder = Path(prepared or constants.DATA_DIR)
    if prepared is None and folder.parts[0] == "~":  # the user has no home
        return cache_folder() / "tensorflow_datasets"
    return folder.expanduser()


def _find_whole(files: FileDataset, store: Path) -> Path | None:
    """Find the newest preparation of the complete published set, checked by the rules of today if there is one."""
    whole = [(folder, origin) for folder, origin in _origins(store / files.name) if origin.is_whole]
    current = [folder for folder, origin in whole if origin.rules == RULES]
    return next(iter([*current, *(folder for folder, _ in whole)]), None)


def _origins(store: Path) -> list[tuple[Path, Origin]]:
    """Return folder and origin of each preparation of a data set, the newest first."""
    paths = sorted(store.glob(f"*/{VERSION}/{ORIGIN}"), key=lambda path: path.stat().st_mtime, reverse=True)
    return [(path.parent, documents.read_json(path, Origin, PREPARE_AGAIN)) for path in paths]


@contextlib.contextmanager
def _one_at_a_time(folder: Path, name: str) -> Iterator[None]:
    """Let one process at a time prepare a data set; the others wait."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open_lock_file(folder / "lock")
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                log.info("another process prepares %s in %s: waiting for it", name, folder)
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)
    except OSError as error:
        if isinstance(error, PermissionError) or error.filename == str(folder):
            raise UserError(
                f"{folder}: the data set {name} cannot be prepared there ({error.strerror}); "
                "choose another folder with prepared=FOLDER"
            ) from error
        raise
