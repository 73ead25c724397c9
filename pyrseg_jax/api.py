"""Use a trained model from Python: `pyrseg_jax.load(path)(image).labels`."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np
from etils import epath
from PIL import Image

from pyrseg_jax.data.decode import decode_image, to_rgb
from pyrseg_jax.data.label_space import LabelSpace
from pyrseg_jax.data.resample import resize_image, upsample_argmax
from pyrseg_jax.errors import UserError
from pyrseg_jax.evaluation.inference import Segmentation
from pyrseg_jax.export.stablehlo import Exported, read_export
from pyrseg_jax.reporting.figures import overlay, pyramid_figure
from pyrseg_jax.reporting.pictures import colors_of
from pyrseg_jax.run import experiment
from pyrseg_jax.run.restore import restore
from pyrseg_jax.run.workdir import Workdir

ImageLike = np.ndarray | Image.Image | str | Path


@dataclasses.dataclass(frozen=True)
class Result:
    """The prediction for one image.

    Attributes:
      labels: (H, W) uint8 train ids at the image's own size: indices into `class_names`.
      probs: (h, w, C) fused class probabilities at the finest level.
      level: (h, w) the level that decided each position; 0 is the coarsest.
      unity: L-1 maps (h_l, w_l), coarse → fine: the probability that a cell holds a single class.
      semantic: L maps (h_l, w_l) uint8: each level's most likely class.
      strides: of the levels, in pixels of the network's input.
      image: (H, W, 3) uint8, what was segmented.
      label_space: the classes.
      threshold: τ that it was fused with.
    """

    labels: np.ndarray
    probs: np.ndarray
    level: np.ndarray
    unity: tuple[np.ndarray, ...]
    semantic: tuple[np.ndarray, ...]
    strides: tuple[int, ...]
    image: np.ndarray
    label_space: LabelSpace
    threshold: float

    @property
    def class_names(self) -> tuple[str, ...]:
        """The name of each class."""
        return self.label_space.names

    def overlay(self) -> Image.Image:
        """Draw the classes' colours over the photograph."""
        return Image.fromarray(overlay(self.image, self.labels, colors_of(self.label_space)))

    def show_pyramid(self) -> Image.Image:
        """Draw both pyramids, what they are fused to, and a legend; a notebook shows the picture, `.save(…)` keeps it."""
        colors = colors_of(self.label_space)
        return pyramid_figure(self.image, self, colors, self.class_names, threshold=self.threshold)

    def _repr_png_(self) -> bytes:
        """Show the overlay where a notebook shows a result."""
        data = io.BytesIO()
        self.overlay().save(data, "PNG")
        return data.getvalue()

    def __repr__(self) -> str:
        found = ", ".join(self.class_names[i] for i in np.unique(self.labels)[:8])
        return f"Result({self.labels.shape[0]} × {self.labels.shape[1]} pixels; classes found: {found})"


class Segmenter:
    """A trained model: call it with an image, or with a list of images of any sizes.

    An image is a path, a PIL image, or a (H, W, 3) uint8 array of RGB. What the network computes is compiled once per size
    that it sees, a multiple of the coarsest stride, not once per size of image; the first image of each takes longer.

    Attributes:
      class_names: of the classes that `labels` are indices of.
    """

    def __init__(self, predict: Callable[[np.ndarray], Segmentation], label_space: LabelSpace, threshold: float):
        self._predict, self._label_space, self._threshold = predict, label_space, threshold
        self.class_names = label_space.names

    def __call__(self, images: ImageLike | Sequence[ImageLike]) -> Result | list[Result]:
        """Segment one image, or each of a list.

        Raises:
          UserError: naming the file or what was given, if it is no image.
        """
        if isinstance(images, list | tuple):
            return [self._segment(image) for image in images]
        return self._segment(images)

    def _segment(self, image: ImageLike) -> Result:
        pixels = read_image(image)
        found = self._predict(pixels)
        return Result(
            found.labels,
            found.probs,
            found.level,
            found.unity,
            found.semantic,
            found.strides,
            pixels,
            self._label_space,
            self._threshold,
        )


def load(path: str | Path, step: int | None = None) -> Segmenter:
    """Load a trained model.

    Args:
      path: the folder of a run, one of its checkpoints (`RUN/checkpoints/STEP`), or a file written by `--mode=export`.
      step: of the run's checkpoint; by default the newest.

    Raises:
      UserError: if there is no model there, or it cannot be read.
    """
    path = epath.Path(path).expanduser()
    if path.is_file():
        exported = read_export(Path(path))
        return Segmenter(_ExportedPredictor(exported), exported.label_space, exported.about["threshold"])
    if path.parent.name == "checkpoints" and path.name.isdigit() and step is None:
        path, step = path.parent.parent, int(path.name)
    elif path.name == "checkpoints":
        path = path.parent
    workdir = Workdir(str(path))
    if not workdir.has_run():
        raise UserError(
            f"{path}: there is no model here: expected the folder of a run (with config.json), one of its checkpoints, or a "
            "file written by --mode=export"
        )
    config, label_space = workdir.read_config(), workdir.read_label_space()
    model = experiment.make_model(config.model, label_space.num_classes)
    state = restore(config, model, workdir, jax.sharding.SingleDeviceSharding(jax.local_devices()[0]), step)
    predict = experiment.make_predictor(config, model, state.variables)
    return Segmenter(predict, label_space, config.evaluation.threshold)


def read_image(image: ImageLike) -> np.ndarray:
    """Return (H, W, 3) uint8 RGB of a path, a PIL image or an array; raises UserError if it is none of these."""
    if isinstance(image, str | Path):
        path = Path(image).expanduser()
        if not path.is_file():
            raise UserError(f"{path}: there is no such image ({path.absolute()})")
        return decode_image(path.read_bytes(), str(path))
    if isinstance(image, Image.Image):
        return to_rgb(image)
    array = np.asarray(image)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[-1] != 3 or not array.size:
        raise UserError(
            f"an array of {array.dtype} with shape {array.shape} is no image: expected uint8 of (height, width, 3), RGB 0 … 255"
        )
    return array


class _ExportedPredictor:
    """Run an exported model: resize to that of its sizes which is nearest in shape, then in area; bring the result back."""

    def __init__(self, exported: Exported):
        self._exported = exported

    def __call__(self, image: np.ndarray) -> Segmentation:
        height, width = image.shape[:2]

        def misfit(size):
            return abs(np.log(size[0] / size[1] * width / height)), abs(np.log(size[0] * size[1] / (height * width)))

        size = min(self._exported.programs, key=misfit)
        found = jax.device_get(self._exported.programs[size](self._exported.weights, resize_image(image, size)[None]))
        found = jax.tree.map(lambda x: x[0], found)
        labels = upsample_argmax(found["probs"], (height, width))
        strides = tuple(size[0] // maps.shape[0] for maps in found["semantic"])
        level = found["level"].astype(np.int32)
        return Segmentation(labels, found["probs"], level, tuple(found["semantic"]), tuple(found["unity"]), strides)
