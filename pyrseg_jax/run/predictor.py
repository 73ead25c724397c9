"""Segment images of any size with a trained model."""

import abc
import dataclasses
import functools
from pathlib import Path
from typing import overload

import jax
import numpy as np
from jaxtyping import Array, Real
from PIL import Image

from pyrseg_jax.data.decode import Masked, decode_masked, to_rgb
from pyrseg_jax.data.image_space import PHOTOGRAPH, ImageSpace, picture_of
from pyrseg_jax.data.images.planes import planes_of
from pyrseg_jax.data.label_space import LabelSpace
from pyrseg_jax.data.resample import resize_image
from pyrseg_jax.errors import UserError, naming_file, reason_of
from pyrseg_jax.evaluation.padding import PaddedView, unpad_view
from pyrseg_jax.evaluation.pixels import labels_of_pixels, padded_pixels
from pyrseg_jax.evaluation.predict import Prediction, predict
from pyrseg_jax.evaluation.view_predictor import ViewPredictor
from pyrseg_jax.evaluation.views import Protocol
from pyrseg_jax.models.segmenter import Segmenter
from pyrseg_jax.reporting.result import Result
from pyrseg_jax.run.config import Config
from pyrseg_jax.run.experiment import make_evaluation_protocol
from pyrseg_jax.storage.regular_file import read_regular_file

ImageLike = np.ndarray | Image.Image | str | Path
MAX_PIXELS = 2**31 - 2**15  # programs number pixels with 32 bits, and count on to the end of a piece of 2¹⁴ pixels


class Predictor(abc.ABC):
    """A trained model: call it with an image, or with a list of images of any sizes.

    An image is a path, a PIL image, or a (H, W, 3) uint8 array of RGB; for a network of other images, an array of as many channels
    with the values of its files. The network is compiled once per size that it sees, a
    multiple of the coarsest stride, and not once per image size. The first image of each size takes longer.

    Attributes:
      label_space: the classes that `Result.labels` are indices of.
      image_space: what the values of its images mean.
    """

    def __init__(self, label_space: LabelSpace, image_space: ImageSpace = PHOTOGRAPH):
        self.label_space, self.image_space = label_space, image_space

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
        if masked.is_void is None:
            return result
        void = self.label_space.dtype.type(self.label_space.void)
        return dataclasses.replace(result, labels=np.where(masked.is_void, void, result.labels))

    @abc.abstractmethod
    def segment(self, image: Real[np.ndarray, "H W c"]) -> Result:
        """Segment one image, as `data.decode` decodes it: RGB, or values of 0 … 255 of the channels of the network."""


class ModelPredictor(Predictor):
    """Segment images with a network and its variables.

    Args:
      model: the network.
      variables: the parameters and batch statistics.
      protocol: the evaluation protocol.
      threshold: τ of the fuser.
      label_space: the classes.
      image_space: what the values of images mean.
    """

    def __init__(
        self,
        model: Segmenter,
        variables: dict,
        protocol: Protocol,
        threshold: float,
        label_space: LabelSpace,
        image_space: ImageSpace = PHOTOGRAPH,
    ):
        super().__init__(label_space, image_space)
        self._variables, self._protocol, self._threshold = variables, protocol, threshold
        self._strides = model.prediction_strides
        self._predict_views = ViewPredictor(model, protocol, threshold)
        self._predict_whole = jax.jit(functools.partial(predict, model, threshold=threshold))

    def segment(self, image: Real[np.ndarray, "H W c"]) -> Result:
        """Segment one image; the labels follow the whole protocol, the pyramid is that of the first view.

        Raises:
          UserError: if the image is too large, or the network's probabilities are not numbers.
        """
        height, width = image.shape[:2]
        if height * width > MAX_PIXELS:
            raise UserError(
                f"an image of {height} × {width} pixels is too large: expected at most {MAX_PIXELS:,} pixels; cut it into parts"
            )
        images = [resize_image(image, size)[None] for size in self._protocol.sizes(height, width)]
        views, unity = self._predict_views(self._variables, images)
        if self._protocol.window_px is None:
            stride = self._strides[-1]
            prediction = _unpad(views[0], unity, (images[0].shape[1] // stride, images[0].shape[2] // stride))
        else:  # no window has the pyramid of the whole image
            prediction = self._predict_whole(self._variables, images=images[0])
        labels = labels_of_pixels(views, np.array([height, width], np.int32), padded_pixels(height * width))
        # Leave out the probabilities of each level: they are not used, and a third larger than the fused ones.
        prediction, labels = jax.device_get((prediction._replace(probs=()), labels))
        check_finite(prediction.fused)
        return Result(
            labels=labels[: height * width].reshape(height, width),
            probs=prediction.fused[0],
            level=prediction.level[0],
            unity=tuple(unity[0] for unity in prediction.unity),
            semantic=tuple(semantic[0] for semantic in prediction.semantic),
            strides=tuple(self._strides[-len(prediction.semantic) :]),
            image=picture_of(image),
            label_space=self.label_space,
            threshold=self._threshold,
        )


@functools.partial(jax.jit, static_argnames="grid")
def _unpad(view: PaddedView, unity: tuple[Array, ...], grid: tuple[int, int]) -> Prediction:
    return unpad_view(view, unity, grid)._replace(probs=())  # not used, so not computed


def make_predictor(
    config: Config, model: Segmenter, variables: dict, label_space: LabelSpace, image_space: ImageSpace = PHOTOGRAPH
) -> ModelPredictor:
    """Build the predictor that a config describes."""
    protocol = make_evaluation_protocol(config)
    return ModelPredictor(model, variables, protocol, config.evaluation.threshold, label_space, image_space)


def check_finite(probs: np.ndarray) -> None:
    """Raise UserError if probabilities are NaN, because the class of such a pixel would silently be the first one."""
    if np.isnan(probs.min()):
        raise UserError(
            "the network's probabilities are not numbers (NaN): its weights are damaged, or its training diverged; use another "
            "checkpoint"
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
    else:
        array = _as_array(image)
    if not space.is_photograph:
        return _as_masked(array, space)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[-1] != 3 or not array.size:
        raise UserError(
            f"an array of {array.dtype} with shape {array.shape} is not an image: expected uint8 of shape (height, width, 3), "
            "RGB in 0 … 255"
        )
    return Masked(array, None)


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
