"""Read a Hugging Face data set: parquet or Arrow files with a column of images and one of label maps.

The classes are those of `id2label.json` beside the files; a value without a name and the value 255 are void. Parquet needs pyarrow,
the extra `import`.

Source: the documentation of Hugging Face's library datasets, "Image" feature: a struct of `bytes` and `path`.
"""

import functools
import threading
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from pyrseg_jax.errors import UserError, first_line
from pyrseg_jax.importing.annotations import IGNORED, Annotations, Notes, Options, Picture
from pyrseg_jax.importing.fields import text_of
from pyrseg_jax.importing.formats.contract import Format
from pyrseg_jax.importing.mask_images import EQUAL_CHANNELS, NO_MEANING, one_channel, read_mask, to_class_map
from pyrseg_jax.importing.source_tree import SourceTree
from pyrseg_jax.importing.splits import split_of_path

IMAGE_COLUMNS = ("image", "pixel_values", "img", "photo")
LABEL_COLUMNS = (
    "label",
    "annotation",
    "mask",
    "labels",
    "semantic_segmentation",
    "segmentation_mask",
    "segmentation",
    "label_map",
)
VOID_VALUE = 255


def recognize(tree: SourceTree) -> str | None:
    """Find parquet files, or Arrow files as `save_to_disk` writes them."""
    found = tree.annotation_files(".parquet", ".arrow")
    return f"there are files such as {found[0]}" if found else None


def read(tree: SourceTree, options: Options) -> Annotations:
    """Read all rows of all files; the split is in the name of a file or its folder."""
    _need_pyarrow()
    files = tree.annotation_files(".parquet", ".arrow")
    if not files:
        raise UserError(
            f"{tree.place('')} has no parquet files: expected those of a data set with images and label maps"
        )
    opened = [_Rows(tree, file) for file in files]
    names, table, where = _classes(tree, options)
    notes, pictures = Notes(), []
    for file, rows in zip(files, opened, strict=True):
        split, stem = split_of_path(file), "_".join(PurePosixPath(file).with_suffix("").parts).removeprefix("data_")
        for i in range(len(rows)):
            name = f"{stem}_{i:06d}"
            paint = functools.partial(_paint, rows, i, table, where, notes)
            pictures.append(Picture(name, functools.partial(rows.read, i, rows.image), split, paint))
    return Annotations(
        names,
        tuple(pictures),
        notes,
        void_meaning="the value 255",
        has_own_order=options.classes is not None and where == str(options.classes.path),
    )


def _need_pyarrow() -> None:
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"a Hugging Face data set needs the package pyarrow, which cannot be imported ({first_line(error)}): install it with "
            "pip install 'pyrseg-jax[import]'"
        ) from error


def _classes(tree: SourceTree, options: Options) -> tuple[tuple[str, ...], np.ndarray, str]:
    """Return the names of the classes, the table from values to class maps, and where the names are from."""
    found = next((name for name in tree.files if PurePosixPath(name).name == "id2label.json"), None)
    if tree.focus is not None:  # the folders beside that of the file hold other data sets
        above = (str(folder / "id2label.json") for folder in PurePosixPath(tree.focus).parents)
        found = next((name for name in above if tree.has(name)), None)
    if found is not None:
        place = tree.place(found)
        document = tree.json(found)
        if not isinstance(document, dict) or not document or not all(key.isdecimal() for key in document):
            raise UserError(f'{place} does not map numbers to names: expected {{"0": "wall", "1": "sky", …}}')
        named = {int(key): text_of(document, key, place).strip() for key in document}
    elif options.classes is not None:
        place, named = str(options.classes.path), dict(enumerate(options.classes.names, options.classes.first))
    else:
        raise UserError(
            f"{tree.place('')} has no id2label.json, so the values of its label maps have no names: add the file, or list the "
            "names, beginning with that of 0, in a text file, and give it with --classes=FILE"
        )
    if max(named) >= NO_MEANING:
        raise UserError(f"{place} names the value {max(named)}: expected values below {NO_MEANING}")
    table = np.full(max(256, max(named) + 1), NO_MEANING, np.uint16)
    table[VOID_VALUE] = IGNORED
    order = sorted(named)
    for value, number in enumerate(order, 1):
        table[number] = value
    return tuple(named[number] for number in order), table, place


def _paint(
    rows: "_Rows", index: int, table: np.ndarray, where: str, notes: Notes, height: int, width: int
) -> np.ndarray:
    place = f"{rows.place}, row {index}"
    mask = read_mask(rows.read(index, rows.label), place)
    values = mask.values
    if values is None:
        assert mask.colors is not None
        values = one_channel(mask.colors)
        if values is None:
            raise UserError(
                f"{place} has a label map with colors: expected one number per pixel, as {where} names them"
            )
        notes.remark(EQUAL_CHANNELS, place)
    return to_class_map(values, table, place)


class _Rows:
    """The rows of one file. One group of rows is in memory at a time, because a file may hold gigabytes of photographs."""

    def __init__(self, tree: SourceTree, file: str):
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.place, self._path = tree.place(file), tree.root / file
        try:
            if file.endswith(".parquet"):
                reader = pq.ParquetFile(self._path, memory_map=True)
                self._read_group = reader.read_row_group
                schema = reader.schema_arrow
                sizes = [reader.metadata.row_group(i).num_rows for i in range(reader.num_row_groups)]
            else:
                source = pa.memory_map(str(self._path))
                batches = list(pa.ipc.open_stream(source))
                schema, sizes = (
                    pa.ipc.open_stream(source).schema if not batches else batches[0].schema,
                    [len(b) for b in batches],
                )
                self._read_group = lambda i, columns: pa.Table.from_batches([batches[i]]).select(columns)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise UserError(f"{self.place} cannot be read ({first_line(error)}): download it again") from error
        self.image = _column(schema, IMAGE_COLUMNS, "images", self.place)
        self.label = _column(schema, LABEL_COLUMNS, "label maps", self.place)
        self._starts = np.concatenate([[0], np.cumsum(sizes)]).astype(int)
        self._lock, self._cached = threading.Lock(), (-1, None)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def read(self, index: int, column: str) -> bytes:
        """Return the bytes of an image in a row; raises UserError naming the row if there are none."""
        group = int(np.searchsorted(self._starts, index, "right")) - 1
        with self._lock:
            if self._cached[0] != group:
                self._cached = group, self._load(group)
            table: Any = self._cached[1]
        value = table[column][index - int(self._starts[group])].as_py()
        data = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(data, bytes) or not data:
            raise UserError(
                f"{self.place}, row {index}: the column {column} holds no image: expected bytes, as the "
                "library datasets embeds them"
            )
        return data

    def _load(self, group: int) -> Any:
        import pyarrow as pa

        try:
            return self._read_group(group, columns=[self.image, self.label])
        except (pa.ArrowException, OSError, ValueError) as error:
            raise UserError(f"{self.place} cannot be read ({first_line(error)}): download it again") from error


def _column(schema: Any, names: tuple[str, ...], kind: str, place: str) -> str:
    """Return the column of images or of label maps: of a usual name, and of bytes or of a struct with bytes."""
    found = [name for name in names if name in schema.names and _holds_bytes(schema.field(name).type)]
    if not found:
        raise UserError(
            f"{place} has the columns {', '.join(schema.names[:12])}: expected one of {kind} "
            f"({', '.join(names[:4])}, …) with their bytes"
        )
    return found[0]


def _holds_bytes(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return any(kind.field(i).name == "bytes" for i in range(kind.num_fields))
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


FORMAT = Format(
    "hugging_face",
    "a Hugging Face data set: parquet files of images and label maps",
    recognize,
    read,
    has_file=True,
)
