"""Segment videos, and the frames of a folder as a video: an MP4 with the overlay, and the labels without loss."""

import contextlib
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from pyrseg_jax.data.decode import decode_image
from pyrseg_jax.data.label_space import LabelSpace
from pyrseg_jax.data.threads import THREADS, ordered_map
from pyrseg_jax.errors import UserError, naming_file
from pyrseg_jax.prediction.listing import Item
from pyrseg_jax.prediction.manifest import Source, Written
from pyrseg_jax.prediction.outputs import OF_VIDEOS, files_of
from pyrseg_jax.prediction.reading import digest_source, read_bytes, stat_source
from pyrseg_jax.prediction.writing import Outcome, Writer, is_full
from pyrseg_jax.reporting.result import overlaid
from pyrseg_jax.run.predictor import Predictor, Segmented, Wants
from pyrseg_jax.storage.atomic import AtomicFile
from pyrseg_jax.storage.paths import is_remote

BATCHES_AHEAD = 2
QUALITY = "20"  # x264's constant rate factor: 0 is lossless, 51 is worst
LONGEST_SIDE_PX = 8192  # of an MP4

Frames = Iterator[np.ndarray]


class VideoWriter:
    """Write the frames of one video.

    Args:
      kind: a key of `OF_VIDEOS`.
      file: an open file.
      rate: frames per second.
      size: height and width of a frame in pixels.
      label_space: the classes.
    """

    def __init__(self, kind: str, file: Any, rate: Fraction, size: tuple[int, int], label_space: LabelSpace):
        self._kind, self._label_space = kind, label_space
        av = import_av()
        height, width = size
        if kind == "overlay":
            self._container = av.open(file, "w", format="mp4")
            self._stream = self._container.add_stream("libx264", rate=rate, options={"crf": QUALITY, "preset": "fast"})
            self._stream.pix_fmt = "yuv420p"
            # Colors have half the resolution in each direction, so both sides must be even: one row or column is repeated.
            height, width = height + height % 2, width + width % 2
        else:
            self._container = av.open(file, "w", format="matroska")
            self._stream = self._container.add_stream("ffv1", rate=rate)
            self._stream.pix_fmt = _gray(label_space)
        self._stream.height, self._stream.width = height, width
        self._size = height, width

    def draw(self, segmented: Segmented) -> np.ndarray:
        """Return the pixels of a frame; this may run in another thread."""
        if self._kind != "overlay":
            return self._label_space.to_file_values(segmented.labels)
        pixels = np.asarray(overlaid(segmented.picture, segmented.labels, self._label_space))
        missing = self._size[0] - pixels.shape[0], self._size[1] - pixels.shape[1]
        return np.pad(pixels, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge") if any(missing) else pixels

    def add(self, pixels: np.ndarray) -> None:
        """Encode a frame."""
        layout = "rgb24" if pixels.ndim == 3 else _gray(self._label_space)
        self._container.mux(self._stream.encode(import_av().VideoFrame.from_ndarray(pixels, format=layout)))

    def close(self) -> None:
        """Write the end."""
        self._container.mux(self._stream.encode())
        self._container.close()


class Videos:
    """Segment videos, one after another.

    Args:
      predictor: the model.
      writer: writes the files.

    Raises:
      UserError: if PyAV is not installed, or no output has a form for videos.
    """

    def __init__(self, predictor: Predictor, writer: Writer):
        import_av()
        for name in writer.outputs:
            if name not in OF_VIDEOS:
                raise UserError(f"--outputs={name} is not written of videos: expected some of {', '.join(OF_VIDEOS)}")
        if not predictor.image_space.is_photograph:
            raise UserError(
                f"a video holds RGB of 8 bits, and this model expects {predictor.image_space.describe()}: give single images"
            )
        self._predictor, self._writer = predictor, writer

    def segment(self, item: Item) -> Outcome:
        """Segment a video file."""

        def open_frames(held: contextlib.ExitStack) -> tuple[Frames, Fraction]:
            if is_remote(item.path):
                raise UserError(f"{item.path}: videos are read from a disk: copy it there")
            container = held.enter_context(import_av().open(str(item.path)))
            if not container.streams.video:
                raise UserError(f"{item.path} holds no video stream")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            rate = stream.average_rate or stream.guessed_rate or Fraction(25)
            return (frame.to_ndarray(format="rgb24") for frame in container.decode(stream)), Fraction(rate)

        return self._finish(item, lambda: digest_source(Path(item.path)), open_frames)

    def segment_frames(self, item: Item, rate: float) -> Outcome:
        """Segment the frames of an item, which all have the size of the first, at this rate per second."""
        frames = item.frames

        def source() -> Source:
            listed = [(frame.key, stat_source(frame.path)) for frame in frames]
            text = "\n".join(f"{key} {found.bytes} {found.modified}" for key, found in listed)
            return Source(sum(found.bytes for _, found in listed), 0, Written.of(text.encode()).sha256)

        def open_frames(held: contextlib.ExitStack) -> tuple[Frames, Fraction]:
            images = ordered_map(lambda one: decode_image(read_bytes(one.path), str(one.path)), frames, THREADS)
            held.callback(images.close)
            return _of_one_size(images, frames), Fraction(rate).limit_denominator(1001)

        return self._finish(item, source, open_frames)

    def _finish(
        self,
        item: Item,
        source_of: Callable[[], Source],
        open_frames: Callable[[contextlib.ExitStack], tuple[Frames, Fraction]],
    ) -> Outcome:
        started_at = time.perf_counter()
        try:
            with naming_file(str(item.path), "cannot be segmented", "replace it, or move it out of the folder"):
                source = source_of()
                if self._writer.is_finished(item, source):
                    return Outcome(item, is_earlier=True)
                with contextlib.ExitStack() as held:
                    frames, rate = open_frames(held)
                    num_frames = self._write(item, frames, rate, source, started_at)
        except UserError as error:
            return Outcome(item, (str(error),), is_last=is_full(error))
        seconds = time.perf_counter() - started_at
        return Outcome(item, note=f"{item.key}: {num_frames} frames, {num_frames / seconds:.3g} frames per second")

    def _write(self, item: Item, frames: Frames, rate: Fraction, source: Source, started_at: float) -> int:
        first = next(frames, None)
        if first is None:
            raise UserError(f"{item.path} holds no frame: replace it")
        size = first.shape[0], first.shape[1]
        names = files_of(item, self._writer.outputs)
        if "overlay" in names and max(size) > LONGEST_SIDE_PX:
            raise UserError(
                f"{item.path} has frames of {size[1]} × {size[0]} pixels: an MP4 has at most {LONGEST_SIDE_PX}"
            )
        self._writer.make_folder(item)
        with contextlib.ExitStack() as held, ThreadPoolExecutor(THREADS) as drawers:
            files = {name: held.enter_context(AtomicFile(self._writer.folder / names[name])) for name in names}
            videos = [
                VideoWriter(name, file.file, rate, size, self._predictor.label_space) for name, file in files.items()
            ]
            num_frames = 0
            drawn: deque[list[Future[np.ndarray]]] = deque()
            for segmented in self._segmented(itertools.chain([first], frames)):
                drawn.append([drawers.submit(video.draw, segmented) for video in videos])
                num_frames += 1
                if len(drawn) > 2 * THREADS:
                    _add(videos, drawn.popleft())
            for pixels in drawn:
                _add(videos, pixels)
            for video in videos:
                video.close()
            written = {}
            for name, file in files.items():
                file.file.flush()
                written[names[name]] = Written.of_file(file.partial)
                self._writer.check_free(names[name], written[names[name]])
            self._writer.record(item, source, size, written, started_at)
            for file in files.values():
                file.commit()
        return num_frames

    def _segmented(self, frames: Frames) -> Iterator[Segmented]:
        """Segment frames in batches; the device always has the next one."""
        started: deque[Callable[[], list[Segmented]]] = deque()
        while batch := list(itertools.islice(frames, self._predictor.batch_size)):
            started.append(self._predictor.start(batch, Wants()))
            if len(started) > BATCHES_AHEAD:
                yield from started.popleft()()
        for finish in started:
            yield from finish()


def import_av() -> Any:
    """Import PyAV; raises UserError if it is not installed."""
    try:
        import av
    except ImportError as error:
        raise UserError(
            f"videos need the package `av` ({error}): install the extra `video` (`pip install 'pyrseg-jax[video]'`)"
        ) from error
    return av


def _gray(label_space: LabelSpace) -> str:
    """Return the pixel format that holds the values of label maps."""
    return "gray" if label_space.file_dtype == np.uint8 else "gray16le"


def _of_one_size(images: Iterator[np.ndarray], frames: Sequence[Item]) -> Frames:
    size = None
    for image, frame in zip(images, frames, strict=False):
        size = size or image.shape
        if image.shape != size:
            raise UserError(
                f"{frame.path} is {image.shape[1]} × {image.shape[0]} pixels, but the first frame of its folder "
                f"{size[1]} × {size[0]} (width × height): the frames of a video have one size"
            )
        yield image


def _add(videos: Sequence[VideoWriter], pixels: Sequence[Future[np.ndarray]]) -> None:
    for video, future in zip(videos, pixels, strict=True):
        video.add(future.result())
