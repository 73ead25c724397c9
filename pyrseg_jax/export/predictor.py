"""Segment images of any size with an exported model."""

import datetime
import hashlib
import logging
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Real

from pyrseg_jax.data.image_space import picture_of
from pyrseg_jax.data.resample import resize_image, upsample_argmax
from pyrseg_jax.export.expiry import Readers, warning_of, writer_of
from pyrseg_jax.export.format import WEIGHTS, Exported
from pyrseg_jax.export.read import read_export
from pyrseg_jax.reporting.result import Result
from pyrseg_jax.run.predictor import Predictor, check_finite

log = logging.getLogger(__name__)


class ExportedPredictor(Predictor):
    """Run an exported model, whose programs take images of a few sizes only.

    An image is resized to the size that is nearest in aspect ratio, then in area, and the probabilities are brought back to the
    image's own size.
    """

    def __init__(self, exported: Exported):
        sizes = [list(size) for size in exported.programs]
        protocol = {"name": "exported", "sizes": sizes}
        super().__init__(exported.label_space, exported.about["threshold"], protocol, exported.image_space)
        self._exported = exported
        temperatures = exported.about.get("temperatures")
        self.temperatures = None if temperatures is None else tuple(temperatures)

    def segment(self, image: Real[np.ndarray, "H W c"]) -> Result:
        """Segment one image, RGB or of the image space of the model."""
        height, width = image.shape[:2]

        def misfit(size: tuple[int, int]) -> tuple[float, float]:
            aspect = np.log(size[0] / size[1] * width / height)
            area = np.log(size[0] * size[1] / (height * width))
            return abs(aspect), abs(area)

        size = min(self._exported.programs, key=misfit)
        found = self._exported.programs[size](self._exported.weights, resize_image(image, size)[None])
        found = jax.tree.map(lambda x: x[0], jax.device_get(found))
        check_finite(found["probs"])
        return Result(
            labels=upsample_argmax(found["probs"], (height, width)),
            probs=found["probs"],
            level=found["level"].astype(np.int32),
            unity=tuple(found["unity"]),
            semantic=tuple(found["semantic"]),
            strides=tuple(size[0] // semantic.shape[0] for semantic in found["semantic"]),
            image=picture_of(image),
            label_space=self.label_space,
            threshold=self._exported.about["threshold"],
        )


def load_exported(path: Path) -> tuple[ExportedPredictor, str]:
    """Read an exported model; return it, and a short text that tells its weights from all others.

    A warning says so if JAX's promise to read the file has ended, or ends soon.

    Raises:
      UserError: as `read_export` does.
    """
    exported = read_export(path)
    readers = exported.about.get("readers")
    writer = writer_of(exported.about["jax"], None if readers is None else Readers(**readers))
    warning = warning_of(writer, jax.__version__, datetime.date.today())
    if warning is not None:
        log.warning("%s: %s", path, warning)
    sums = exported.about.get("sha256") or {}
    with path.open("rb") as file:
        digest = sums.get(WEIGHTS) or hashlib.file_digest(file, "sha256").hexdigest()
    return ExportedPredictor(exported), digest[:16]
