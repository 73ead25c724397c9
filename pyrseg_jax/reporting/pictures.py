"""The three files that a prediction is written to."""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from pyrseg_jax.reporting.figures import pyramid_figure
from pyrseg_jax.reporting.result import Result


def save_pictures(folder: Path, name: str, result: Result, truth: UInt8[np.ndarray, "h w"] | None = None) -> None:
    """Write `NAME.png`, `NAME_overlay.jpg` and `NAME_pyramid.png`.

    `NAME.png` has one channel and holds the data set's own class numbers.

    Args:
      folder: must exist.
      name: NAME.
      result: the prediction for one image.
      truth: (H, W) train ids of the ground truth, if there is one.
    """
    Image.fromarray(result.label_space.to_file_values(result.labels)).save(folder / f"{name}.png")
    result.overlay().save(folder / f"{name}_overlay.jpg", quality=92)
    pyramid_figure(result, truth=truth, title=name).save(folder / f"{name}_pyramid.png")
