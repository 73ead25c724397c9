"""What every trained model can do, wherever it comes from: segment one image for a caller, or many for `predict`."""

import abc
import dataclasses
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
from jaxtyping import Bool, Real, UInt8
from PIL import Image

from pyrseg_jax.data.decode import Masked, decode_masked, to_rgb
from pyrseg_jax.data.image_space import PHOTOGRAPH, ImageSpace
from pyrseg_jax.data.images.planes import planes_of
from pyrseg_jax.data.label_space import LabelSpace
from pyrseg_jax.data.resample import upsample_max, upsample_scaled
from pyrseg_jax.errors import UserError, naming_file, reason_of
from pyrseg_jax.evaluation.window_model import WindowModel
from pyrseg_jax.reporting.result import Result
from pyrseg_jax.storage.regular_file import read_regular_file

ImageLike = np.ndarray | Image.Image | str | Path
MAX_PIXELS = 2**31 - 2**15  # programs number pixels with 32 bits, and count on to the end of a piece of 2¹⁴ pixels


class Wants(NamedTuple):
    """What the outputs of a prediction need besides the labels.

    has_confidence: whether they need the confidence of each pixel.
    has_pyramid: whether they need the whole `Result`, with both pyramids.
    has_entropy, has_disagreement: whether they need these maps; `evaluation.uncertainty` defines them.
    """

    has_confidence: bool = False
    has_pyramid: bool = False
    has_entropy: bool = False
    has_disagreement: bool = False


class Segmented(NamedTuple):
    """The prediction for one image.

    picture: (H, W, 3) uint8, the image as people see it.
    labels: (H, W) train ids at the image's own size.
    confidence: (H, W) uint8: the probability of each pixel's class, 0 … 255 for 0 … 1; None unless it was wanted.
    result: the prediction with both pyramids; None unless they were wanted.
    entropy, disagreement: (H, W) uint8, 0 … 255 for 0 … 1; None unless they were wanted.
    """

    picture: np.ndarray
    labels: np.ndarray
    confidence: np.ndarray | None = None
    result: Result | None = None
    entropy: np.ndarray | None = None
    disagreement: np.ndarray | None = None

    def masked(self, is_void: Bool[np.ndarray, "H W"] | None, void: int) -> "Segmented":
        """Return the prediction with the train id `void`, and zeros in the maps, where the image has no data."""
        if is_void is None:
            return self

        def zeroed(values: np.ndarray | None) -> np.ndarray | None:
            return None if values is None else np.where(is_void, np.uint8(0), values)

        return Segmented(
            self.picture,
            np.where(is_void, self.labels.dtype.type(void), self.labels),
            zeroed(self.confidence),
            None if self.result is None else _masked(self.result, is_void),
            zeroed(self.entropy),
            zeroed(self.disagreement),
        )


class Unusable(UserError):
    """A model that cannot segment any image."""


class Predictor(abc.ABC):
    """A trained model: call it with an image, or with a list of images of any sizes.

    An image is a path, a PIL image, or a (H, W, 3) uint8 array of RGB; for a network of other images, an array of as many channels
    with the values of its files. The network is compiled once per size that it sees, a multiple of the coarsest stride, and not
    once per image size. The first image of each size takes longer.

    Attributes:
      label_space: the classes that `Result.labels` are indices of.
      image_space: what the values of its images mean.
      threshold: τ of the fuser.
      protocol: how the network sees an image, as JSON can hold it.
      batch_size: how many images of one group `start` takes at most.
      temperatures: T of each level, coarse → fine, which `pyrseg calibrate` fitted; None: confidences are those of the network.
    """

    batch_size: int = 1
    temperatures: tuple[float, ...] | None = None

    def __init__(
        self,
        label_space: LabelSpace,
        threshold: float,
        protocol: dict[str, Any],
        image_space: ImageSpace = PHOTOGRAPH,
    ):
        self.label_space, self.image_space = label_space, image_space
        self.threshold, self.protocol = threshold, protocol

    @property
    def class_names(self) -> tuple[str, ...]:
        """The name of each class."""
        return self.label_space.names

    @overload
    def __call__(self, images: ImageLike) -> Result: ...

    @overload
    def __call__(self, images: list[ImageLike] | tuple[ImageLike, ...]) -> list[Result]: ...

    def __call__(self, images: ImageLike | list[ImageLike] | tuple[ImageLike, ...]) -> Result | list[Result]:
        """Segment one image, or each image of a list or tuple.

        Raises:
          UserError: naming the file or the argument, if it is not an image.
        """
        if isinstance(images, list | tuple):
            return [self.segment_masked(read_masked(image, self.image_space)) for image in images]
        return self.segment_masked(read_masked(images, self.image_space))

    def segment_masked(self, masked: Masked) -> Result:
        """Segment one image, whose pixels without data become void."""
        result = self.segment(masked.image)
        return result if masked.is_void is None else _masked(result, masked.is_void)

    @abc.abstractmethod
    def segment(self, image: Real[np.ndarray, "H W c"]) -> Result:
        """Segment one image, as `data.decode` decodes it: RGB, or values of 0 … 255 of the channels of the network."""

    def group_of(self, height: int, width: int) -> Hashable:
        """Return the group of an image of this size: images of one group can be in one batch of `start`."""
        return height, width

    def start(self, images: Sequence[np.ndarray], wants: Wants) -> Callable[[], list[Segmented]]:
        """Start to segment a batch, and return a function that waits for the predictions.

        Args:
          images: at most `batch_size` images (H, W, C) of one group, as `data.decode` decodes them.
          wants: what is needed besides the labels.

        Returns:
          A function that returns the predictions in the same order; it raises UserError as `segment` does.
        """

        def finish() -> list[Segmented]:
            return [self._without_the_rest(self.segment(image), wants) for image in images]

        return finish

    def check_wants(self, wants: Wants) -> None:
        """Raise UserError if the model cannot give what is wanted."""
        if wants.has_disagreement:
            raise UserError(
                "--outputs=disagreement needs the probabilities of every level, which an exported model does not return: give the "
                "folder of the run with --workdir"
            )

    def _without_the_rest(self, result: Result, wants: Wants) -> Segmented:
        size, confidence, entropy = result.labels.shape, None, None
        if self.temperatures is None and wants.has_confidence:
            confidence = confidence_of(result.probs, size)
        if wants.has_entropy or (wants.has_confidence and self.temperatures is not None):
            temperatures = self.temperatures or (1.0,) * (int(result.level.max()) + 1)
            sure, unsure = upsample_scaled(result.probs, result.level, temperatures, (size[0], size[1]))
            confidence = to_byte(sure) if wants.has_confidence and confidence is None else confidence
            entropy = to_byte(unsure) if wants.has_entropy else None
        return Segmented(result.image, result.labels, confidence, result if wants.has_pyramid else None, entropy)

    def windows(self, has_confidence: bool) -> WindowModel:
        """Return what predicts windows of large images; raises UserError if the model has no program for them.

        Args:
          has_confidence: whether the probability of each pixel's class is needed.
        """
        raise UserError(
            "this model has programs for a few sizes of whole images only, so it cannot predict in windows: give the folder of "
            "the run with --workdir"
        )


def confidence_of(probs: np.ndarray, size: tuple[int, ...]) -> UInt8[np.ndarray, "H W"]:
    """Interpolate class probabilities (h, w, C) to (height, width), and return the largest of each pixel as 0 … 255."""
    return to_byte(upsample_max(probs, (size[0], size[1])))


def to_byte(values: np.ndarray) -> UInt8[np.ndarray, "H W"]:
    """Return values of 0 … 1 as 0 … 255; bytes stay as they are."""
    return values if values.dtype == np.uint8 else np.round(255 * values).astype(np.uint8)


def check_finite(probs: np.ndarray) -> None:
    """Raise UserError if probabilities are NaN, because the class of such a pixel would silently be the first one."""
    if np.isnan(probs.min()):
        raise not_numbers()


def not_numbers() -> UserError:
    """Return the error for a network whose probabilities are not numbers."""
    return UserError(
        "the network's probabilities are not numbers (NaN): its weights are damaged, or its training diverged; use another "
        "checkpoint"
    )


def check_size(height: int, width: int) -> None:
    """Raise UserError if an image has more pixels than one program can number."""
    if height * width > MAX_PIXELS:
        raise UserError(
            f"an image of {height} × {width} pixels is too large: expected at most {MAX_PIXELS:,} pixels; cut it into parts"
        )


def read_image(image: ImageLike, space: ImageSpace = PHOTOGRAPH) -> Real[np.ndarray, "H W c"]:
    """Return the pixels of a path, a PIL image or an array, RGB or of another image space; raises UserError as `read_masked`."""
    return read_masked(image, space).image


def read_masked(image: ImageLike, space: ImageSpace = PHOTOGRAPH) -> Masked:
    """Return the pixels of a path, a PIL image or an array, and which of them have no data.

    Raises:
      UserError: if it is none of these, or does not hold such values.
    """
    if isinstance(image, str | Path):
        path = Path(image).expanduser()
        with naming_file(str(path), "cannot be read", "give the path of an image"):
            if not path.exists():
                raise UserError(f"{path}: there is no such image ({path.absolute()})")
            return decode_masked(read_regular_file(path), str(path), space)
    if isinstance(image, Image.Image):
        name = f"the picture of mode {image.mode} and size {image.size}"
        with naming_file(name, "cannot be read", "open it again"):
            array = to_rgb(image) if space.is_photograph else planes_of(image, name)
    elif isinstance(image, bytes | bytearray) or image is None or hasattr(image, "read"):
        raise UserError(
            f"an object of type {type(image).__name__} is not an image: expected a path, a PIL image, an array, or a list of them; "
            "PIL.Image.open opens files and io.BytesIO(bytes)"
        )
    else:
        array = _as_array(image)
    if not space.is_photograph:
        return _as_masked(array, space)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[-1] != 3 or not array.size:
        raise UserError(
            f"an array of {array.dtype} with shape {array.shape} is not an image: expected uint8 of shape (height, width, 3), "
            f"RGB in 0 … 255{_advice(array)}"
        )
    return Masked(array, None)


def _advice(array: np.ndarray) -> str:
    """Say how an array of a usual other kind becomes an image; empty if it is of none."""
    if array.ndim == 4 and array.size:
        return "; for a batch, give list(array)"
    if array.ndim == 3 and array.shape[0] == 3 and array.shape[-1] != 3:
        return "; bring the channels to the end with array.transpose(1, 2, 0)"
    if array.dtype == np.uint8 and array.ndim == 2:
        return "; give a gray image as PIL.Image.fromarray(array)"
    if array.dtype == np.uint8 and array.ndim == 3 and array.shape[-1] == 4:
        return "; give an RGBA image as PIL.Image.fromarray(array)"
    if array.ndim == 3 and np.issubdtype(array.dtype, np.floating):
        return "; for values in 0 … 1, give (array * 255).round().astype(np.uint8)"
    return ""


def _masked(result: Result, is_void: Bool[np.ndarray, "H W"]) -> Result:
    void = result.label_space.dtype.type(result.label_space.void)
    return dataclasses.replace(result, labels=np.where(is_void, void, result.labels))


def _as_masked(array: np.ndarray, space: ImageSpace) -> Masked:
    """Scale an array that holds the values of a file."""
    array = array[..., None] if array.ndim == 2 and space.channels == 1 else array
    name = f"an array of {array.dtype} with shape {array.shape}"
    if array.ndim != 3 or not array.size:
        raise UserError(
            f"{name} is not an image: expected the shape (height, width, {space.channels}), {space.describe()}"
        )
    space.check_type(array, name)
    return Masked(*space.to_image(array, space.find_missing(array)))


def _as_array(value: object) -> np.ndarray:
    try:
        return np.asarray(value)
    except Exception as error:  # of another library's arrays, for example on a device that is not this one's
        raise UserError(
            f"an object of type {type(value).__name__} is not an image ({reason_of(error)}): expected a path, a PIL image, or a "
            "uint8 array of shape (height, width, 3)"
        ) from error
