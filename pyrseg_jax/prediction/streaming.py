"""Segment one image in windows, and write its files row by row: memory does not grow with the height of the image."""

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pyrseg_jax.data.image_space import picture_of
from pyrseg_jax.data.images import geotiff
from pyrseg_jax.data.label_space import LabelSpace
from pyrseg_jax.data.resample import resize_image
from pyrseg_jax.errors import UserError, naming_file
from pyrseg_jax.evaluation import windows
from pyrseg_jax.evaluation.window_model import WindowModel
from pyrseg_jax.evaluation.windows import Strip
from pyrseg_jax.prediction.listing import Item
from pyrseg_jax.prediction.manifest import Source, Written
from pyrseg_jax.prediction.outputs import GEOTIFF, STREAMED, files_of
from pyrseg_jax.prediction.rasters import open_raster
from pyrseg_jax.prediction.reading import digest_source, read_bytes, stat_source
from pyrseg_jax.prediction.writing import Outcome, Writer, is_full
from pyrseg_jax.reporting.pictures import color_table, find_place
from pyrseg_jax.reporting.result import overlaid
from pyrseg_jax.run.predictor import Predictor, not_numbers
from pyrseg_jax.storage.atomic import AtomicFile
from pyrseg_jax.storage.paths import is_remote
from pyrseg_jax.storage.png_stream import PngWriter

LONGEST_OVERLAY_PX = 4096  # of a side; the overlay of a larger image is drawn smaller


def check_outputs(outputs: tuple[str, ...]) -> None:
    """Raise UserError for an output that has no form for images in windows."""
    for name in outputs:
        if name not in STREAMED:
            raise UserError(
                f"--outputs={name} is not written with --window: expected some of {', '.join(STREAMED)}"
                + (": no window has the pyramid of the whole image" if name == "pyramid" else "")
            )


class Windows:
    """Segment images in windows, one after another.

    Args:
      predictor: the model.
      writer: writes the files.
      window_px: side of a window.

    Raises:
      UserError: if the model has no programs for windows, or an output cannot be written row by row.
    """

    def __init__(self, predictor: Predictor, writer: Writer, window_px: int):
        check_outputs(writer.outputs)
        self._predictor, self._writer, self._window_px = predictor, writer, window_px
        self._model: WindowModel = predictor.windows("confidence" in writer.outputs)

    def segment(self, item: Item) -> Outcome:
        """Segment an image, unless an earlier command has finished it."""
        started_at = time.perf_counter()
        try:
            with naming_file(str(item.path), "cannot be segmented", "replace it, or move it out of the folder"):
                source = stat_source(item.path)
                if not self._writer.is_finished(item, source):
                    source = _digest(item, source)
                if self._writer.is_finished(item, source):
                    return Outcome(item, is_earlier=True)
                with open_raster(item.path, self._predictor.image_space) as raster:
                    self._write(item, raster, source, started_at)
        except UserError as error:
            return Outcome(item, (str(error),), is_last=is_full(error))
        return Outcome(item)

    def _write(self, item: Item, raster, source: Source, started_at: float) -> None:
        names = files_of(item, self._writer.outputs)
        place = find_place(Path(item.path), str(item.path)) if GEOTIFF in names and not is_remote(item.path) else None
        if place is None or (place.height, place.width) != raster.size:
            place = None
            names.pop(GEOTIFF, None)
        self._writer.make_folder(item)
        space = self._predictor.label_space
        with contextlib.ExitStack() as held, ThreadPoolExecutor(1) as drawer:
            files = {name: held.enter_context(AtomicFile(self._writer.folder / names[name])) for name in names}
            sinks = [_SINKS[name](files[name].file, raster.size, space) for name in names if name != GEOTIFF]
            if place is not None:
                sinks.append(held.enter_context(_GeoTiffSink(files[GEOTIFF].partial, place, space)))
            read_rows = lambda top, bottom: raster.read(top, bottom).image  # noqa: E731
            found = windows.Windows(self._model, read_rows, raster.size, self._window_px)
            drawn = None
            for strip in found.predict("confidence" in names):
                if not strip.is_number:
                    raise not_numbers()
                rows = None
                if "overlay" in names or not self._predictor.image_space.is_photograph:
                    image, is_void = raster.read(strip.top, strip.top + len(strip.labels))
                    rows, strip = picture_of(image), _masked(strip, is_void, space.void)
                if drawn is not None:  # at most one strip waits
                    drawn.result()
                drawn = drawer.submit(_draw, sinks, strip, rows)
            if drawn is not None:
                drawn.result()
            for sink in sinks:
                sink.finish()
            written = {}
            for name, file in files.items():
                file.file.flush()
                written[names[name]] = Written.of_file(file.partial)
                self._writer.check_free(names[name], written[names[name]])
            self._writer.record(item, source, raster.size, written, started_at)
            for file in files.values():
                file.commit()
            self._writer.discard_others(item)


def _masked(strip: Strip, is_void: np.ndarray | None, void: int) -> Strip:
    """Return a strip with the train id `void`, and no confidence, where the image has no data."""
    if is_void is None:
        return strip
    confidence = None if strip.confidence is None else np.where(is_void, np.float32(0), strip.confidence)
    labels = np.where(is_void, strip.labels.dtype.type(void), strip.labels)
    return strip._replace(labels=labels, confidence=confidence)


def _digest(item: Item, source: Source) -> Source:
    if is_remote(item.path):
        data = read_bytes(item.path)
        return source._replace(sha256=Written.of(data).sha256)
    return digest_source(item.path)  # pyright: ignore[reportArgumentType]  # a local path


def _draw(sinks: list, strip: Strip, rows: np.ndarray | None) -> None:
    for sink in sinks:
        sink.add(strip, rows)


class _LabelSink:
    def __init__(self, file: Any, size: tuple[int, int], label_space: LabelSpace):
        depth = 8 * label_space.file_dtype.itemsize
        self._png, self._label_space = PngWriter(file, size[1], size[0], depth=depth), label_space

    def add(self, strip: Strip, rows: np.ndarray | None) -> None:
        self._png.write(self._label_space.to_file_values(strip.labels))

    def finish(self) -> None:
        self._png.finish()


class _GeoTiffSink:
    def __init__(self, path: Path, place: geotiff.GeoProfile, label_space: LabelSpace):
        dtype = label_space.file_dtype
        self._label_space = label_space
        self._file = geotiff.open_label_writer(path, place, dtype, label_space.void_file_id)

    def __enter__(self) -> "_GeoTiffSink":
        self._writer = self._file.__enter__()
        self._is_open = True
        return self

    def add(self, strip: Strip, rows: np.ndarray | None) -> None:
        self._writer.write(strip.top, 0, self._label_space.to_file_values(strip.labels))

    def finish(self) -> None:
        self.__exit__()

    def __exit__(self, *error: object) -> None:
        if self._is_open:
            self._is_open = False
            self._file.__exit__(None, None, None)


class _ConfidenceSink:
    def __init__(self, file: Any, size: tuple[int, int], label_space: LabelSpace):
        self._png = PngWriter(file, size[1], size[0])

    def add(self, strip: Strip, rows: np.ndarray | None) -> None:
        assert strip.confidence is not None, "it was wanted"
        self._png.write(np.round(255 * np.clip(strip.confidence, 0, 1)).astype(np.uint8))

    def finish(self) -> None:
        self._png.finish()


class _ColorSink:
    def __init__(self, file: Any, size: tuple[int, int], label_space: LabelSpace):
        self._png, self._colors = PngWriter(file, size[1], size[0], 3), color_table(label_space)

    def add(self, strip: Strip, rows: np.ndarray | None) -> None:
        self._png.write(self._colors[strip.labels])

    def finish(self) -> None:
        self._png.finish()


class _OverlaySink:
    """Shrink image and labels by a whole factor as the rows come, and draw at the end."""

    def __init__(self, file: Any, size: tuple[int, int], label_space: LabelSpace):
        self._file, self._label_space = file, label_space
        self._factor = -(-max(size) // LONGEST_OVERLAY_PX)
        self._width = size[1] // self._factor * self._factor or size[1]
        self._images: list[np.ndarray] = []
        self._labels: list[np.ndarray] = []
        self._waiting: tuple[np.ndarray, np.ndarray] | None = None

    def add(self, strip: Strip, rows: np.ndarray | None) -> None:
        assert rows is not None
        if self._factor == 1:
            self._images.append(rows)
            self._labels.append(strip.labels)
            return
        image, labels = rows[:, : self._width], strip.labels[:, : self._width]
        if self._waiting is not None:
            image, labels = (np.concatenate(pair) for pair in zip(self._waiting, (image, labels), strict=True))
        whole = len(labels) // self._factor * self._factor
        if whole:
            half = self._factor // 2
            size = whole // self._factor, self._width // self._factor
            self._images.append(resize_image(image[:whole], size))
            self._labels.append(labels[half : whole : self._factor, half :: self._factor][:, : size[1]])
        self._waiting = image[whole:].copy(), labels[whole:].copy()

    def finish(self) -> None:
        image, labels = np.concatenate(self._images), np.ascontiguousarray(np.concatenate(self._labels))
        picture: Image.Image = overlaid(image, labels, self._label_space)
        picture.save(self._file, "JPEG", quality=92)


_SINKS = {"labels": _LabelSink, "confidence": _ConfidenceSink, "color": _ColorSink, "overlay": _OverlaySink}
