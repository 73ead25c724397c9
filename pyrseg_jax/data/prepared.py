"""Data sets that TFDS prepares once and keeps as ArrayRecord files."""

import contextlib
import io
import logging
import sys

import tensorflow_datasets as tfds

from pyrseg_jax.data.source import Record
from pyrseg_jax.errors import UserError

log = logging.getLogger(__name__)


def prepare(builder_class: type, data_dir: str | None) -> tfds.core.DatasetBuilder:
    """Return the builder of a data set, prepared if it was not yet.

    TFDS prepares into a temporary folder that it renames at the end: an interrupted preparation is begun anew, never taken
    for complete.

    Raises:
      UserError: if the folder cannot be written.
    """
    builder = builder_class(data_dir=data_dir, file_format="array_record")
    if not builder.is_prepared():
        log.info("preparing the data set %s in %s (once)", builder.name, builder.data_dir)
        if not sys.stderr.isatty():  # in a log file its bars are noise
            tfds.disable_progress_bar()
        try:
            # What TFDS prints is said in the line above; standard output is for results.
            with contextlib.redirect_stdout(io.StringIO()):
                builder.download_and_prepare(file_format="array_record")
        except OSError as error:
            raise UserError(
                f"{builder.data_dir}: the data set {builder.name} cannot be prepared there ({error}); "
                "choose another folder with --config.data.prepared=FOLDER"
            ) from error
    return builder


class PreparedSource:
    """Random access to one split of a prepared data set, as undecoded records: see `decode.decode_pair`."""

    def __init__(self, builder: tfds.core.DatasetBuilder, split: str):
        if split not in builder.info.splits:
            raise UserError(
                f"the data set {builder.name} has no split {split!r}: expected one of {', '.join(builder.info.splits)}"
            )
        raw = {"image": tfds.decode.SkipDecoding(), "label": tfds.decode.SkipDecoding()}
        self._records = builder.as_data_source(split, decoders=raw)
        self._where = f"{builder.info.full_name}/{split}"

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Record:
        record = self._records[index]
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
