"""Segment images of any size with the network of a run."""

import functools
from collections.abc import Callable, Sequence

import jax
import numpy as np
from flax.errors import FlaxError
from jaxtyping import Array, Real, UInt

from pyrseg_jax.data.image_space import PHOTOGRAPH, ImageSpace, picture_of
from pyrseg_jax.data.label_space import LabelSpace
from pyrseg_jax.data.resample import resize_image
from pyrseg_jax.errors import UserError, reason_of
from pyrseg_jax.evaluation.padding import PaddedView, unpad_view
from pyrseg_jax.evaluation.pixels import labels_of_pixels, padded_pixels, pixels_of_batch
from pyrseg_jax.evaluation.predict import Prediction, predict
from pyrseg_jax.evaluation.uncertainty import Measured, maps_of_batch
from pyrseg_jax.evaluation.view_predictor import ViewPredictor
from pyrseg_jax.evaluation.views import Protocol
from pyrseg_jax.evaluation.window_model import WindowModel
from pyrseg_jax.evaluation.window_network import NetworkInWindows
from pyrseg_jax.models.segmenter import Segmenter
from pyrseg_jax.reporting.result import Result
from pyrseg_jax.run.config import Config
from pyrseg_jax.run.networks import make_evaluation_protocol
from pyrseg_jax.run.predictor import (
    Predictor,
    Segmented,
    Unusable,
    Wants,
    check_finite,
    check_size,
    not_numbers,
    to_byte,
)

MAX_PROGRAMS = 32  # compiled programs for sizes of images that are kept in memory; others are read from the cache again


class ModelPredictor(Predictor):
    """Segment images with a network and its variables.

    Args:
      model: the network.
      variables: the parameters and batch statistics.
      protocol: the evaluation protocol.
      threshold: τ of the fuser.
      label_space: the classes.
      batch_size: images in a batch of `start`. On a CPU it is 1: larger batches are not faster there, and their probabilities
        differ in the last bits.
      image_space: what the values of images mean.
      temperatures: T of each level; None leaves confidences as the network gives them.
    """

    def __init__(
        self,
        model: Segmenter,
        variables: dict,
        protocol: Protocol,
        threshold: float,
        label_space: LabelSpace,
        batch_size: int = 1,
        image_space: ImageSpace = PHOTOGRAPH,
        temperatures: tuple[float, ...] | None = None,
    ):
        super().__init__(label_space, threshold, protocol.values(), image_space)
        self.temperatures = temperatures
        self.batch_size = 1 if jax.default_backend() == "cpu" else batch_size
        self._model, self._variables, self._protocol, self._threshold = model, variables, protocol, threshold
        self._strides = model.prediction_strides
        self._coarsest, self._num_levels = model.strides[0], model.num_predicted_levels
        self._predict_views = ViewPredictor(model, protocol, threshold)
        self._predict_disagreement = ViewPredictor(model, protocol, threshold, has_disagreement=self.has_disagreement)
        self._predict_whole = jax.jit(functools.partial(predict, model, threshold=threshold))

    def segment(self, image: Real[np.ndarray, "H W c"]) -> Result:
        """Segment one image; the labels follow the whole protocol, the pyramid is that of the first view.

        Raises:
          UserError: if the image is too large, or the network's probabilities are not numbers.
        """
        height, width = image.shape[:2]
        check_size(height, width)
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

    def group_of(self, height: int, width: int) -> tuple:
        """Return the sizes at which the network sees an image, and the padded number of its pixels."""
        check_size(height, width)
        return self._protocol.sizes(height, width), padded_pixels(height * width)

    def start(self, images: Sequence[np.ndarray], wants: Wants) -> Callable[[], list[Segmented]]:
        """Start to segment a batch. A batch that is not full is filled up, so that each group has one program."""
        names = tuple(name for name in ("confidence", "entropy", "disagreement") if getattr(wants, f"has_{name}"))
        is_scaled = wants.has_confidence and self.temperatures is not None
        has_maps = is_scaled or wants.has_entropy or wants.has_disagreement
        if wants.has_pyramid and not has_maps:
            return super().start(images, wants)
        predict_views = self._predict_disagreement if wants.has_disagreement else self._predict_views
        views, shapes, padded_size = self._start_views(images, predict_views)
        if has_maps:
            found = maps_of_batch(views, shapes, padded_size, names, self._scaling())
        else:
            labels, confidence, is_number = pixels_of_batch(views, shapes, padded_size, wants.has_confidence)
            found = labels, {} if confidence is None else {"confidence": confidence}, is_number

        def finish() -> list[Segmented]:
            labels, maps, is_number = jax.device_get(found)
            if not is_number.all():
                raise not_numbers()
            return [
                Segmented(
                    picture_of(image),
                    _cut(labels[i], image),
                    result=self.segment(image) if wants.has_pyramid else None,
                    **{name: to_byte(_cut(values[i], image)) for name, values in maps.items()},
                )
                for i, image in enumerate(images)
            ]

        return finish

    def _start_views(
        self, images: Sequence[np.ndarray], predict_views: ViewPredictor
    ) -> tuple[list[PaddedView], np.ndarray, int]:
        """Start to predict the views of a batch; also return the sizes of its images, and the padded number of their pixels."""
        predict_views.drop_programs_above(MAX_PROGRAMS)
        sizes, padded_size = self.group_of(*images[0].shape[:2])
        num_missing = self.batch_size - len(images)
        filled = [*images, *[images[0]] * num_missing]
        batches = [np.stack([resize_image(image, size) for image in filled]) for size in sizes]
        try:
            views, _ = predict_views(self._variables, batches)
        except FlaxError as error:
            raise Unusable(
                f"the checkpoint holds arrays of another network than the one configured ({reason_of(error)}): restore "
                "config.json, or train again"
            ) from error
        return views, np.array([image.shape[:2] for image in filled], np.int32), padded_size

    def measure(
        self, image: Real[np.ndarray, "H W c"], truth: UInt[np.ndarray, "H W"] | None = None
    ) -> Callable[[], Measured]:
        """Start to measure how sure the prediction for an image is, and return a function that waits for the result.

        Args:
          image: as for `segment`.
          truth: its label map as train ids, for the doubt about it.
        """
        views, shapes, padded_size = self._start_views([image], self._predict_disagreement)
        names = ["confidence", "entropy", *["disagreement"] * self.has_disagreement, *["doubt"] * (truth is not None)]
        padded = None
        if truth is not None:
            padded = np.full((len(shapes), padded_size), self.label_space.void, truth.dtype)
            padded[:, : truth.size] = truth.ravel()
        found = maps_of_batch(views, shapes, padded_size, tuple(names), self._scaling(), padded)

        def finish() -> Measured:
            labels, maps, is_number = jax.device_get(found)
            if not is_number.all():
                raise not_numbers()
            cut = {name: _cut(values[0], image) for name, values in maps.items()}
            return Measured(
                _cut(labels[0], image), cut["confidence"], cut["entropy"], cut.get("disagreement"), cut.get("doubt")
            )

        return finish

    @property
    def has_disagreement(self) -> bool:
        """Return whether each pixel has the probabilities of several levels."""
        return self._num_levels > 1 and self._protocol.window_px is None

    def check_wants(self, wants: Wants) -> None:
        """Raise UserError if the model cannot give what is wanted."""
        if wants.has_disagreement and not self.has_disagreement:
            why = (
                "this network has a single level" if self._num_levels == 1 else "this protocol cuts images into windows"
            )
            raise UserError(
                f"--outputs=disagreement compares the levels of a pyramid, but {why}: use a network with a pyramid and a protocol "
                "without windows, or --outputs=entropy"
            )

    def _scaling(self) -> np.ndarray:
        return np.array(self.temperatures or (1.0,) * self._num_levels, np.float32)

    def num_programs(self) -> int:
        """Return how many compiled programs of the network are in memory for `start`."""
        return self._predict_views.num_programs()

    def windows(self, has_confidence: bool) -> WindowModel:
        """Return what predicts windows of large images."""
        temperatures = self._scaling() if has_confidence and self.temperatures is not None else None
        return NetworkInWindows(self._model, self._variables, self._threshold, temperatures)


def _cut(padded: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Return the pixels of an image from a padded array, as an array of its own: a view would keep the padding in memory."""
    height, width = image.shape[:2]
    return padded[: height * width].reshape(height, width).copy()


@functools.partial(jax.jit, static_argnames="grid")
def _unpad(view: PaddedView, unity: tuple[Array, ...], grid: tuple[int, int]) -> Prediction:
    return unpad_view(view, unity, grid)._replace(probs=())  # not used, so not computed


def make_predictor(
    config: Config,
    model: Segmenter,
    variables: dict,
    label_space: LabelSpace,
    batch_size: int = 1,
    image_space: ImageSpace = PHOTOGRAPH,
    temperatures: tuple[float, ...] | None = None,
) -> ModelPredictor:
    """Build the predictor that a config describes; the arguments after `label_space` are those of `ModelPredictor`."""
    protocol, threshold = make_evaluation_protocol(config), config.evaluation.threshold
    return ModelPredictor(model, variables, protocol, threshold, label_space, batch_size, image_space, temperatures)
