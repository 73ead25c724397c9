"""What the trackers of a training get: the description of the run, and pictures of predictions after each evaluation."""

import logging
from typing import Any

import numpy as np
from PIL import Image

from pyrseg_jax.data.catalog import Dataset
from pyrseg_jax.data.holdout import take
from pyrseg_jax.data.image_space import picture_of
from pyrseg_jax.errors import UserError, reason_of
from pyrseg_jax.evaluation.evaluator import Evaluator, Sample
from pyrseg_jax.reporting.logbook import Logbook
from pyrseg_jax.reporting.palette import colors_of, overlay
from pyrseg_jax.reporting.trackers import check_installed, read_names
from pyrseg_jax.reporting.trackers.forwarding import Tracked
from pyrseg_jax.run.config import Config
from pyrseg_jax.run.keys import keys_of, value_of
from pyrseg_jax.run.workdir import Workdir

log = logging.getLogger(__name__)

MAX_WIDTH_PX = 480  # of each of the three panels
GAP_PX = 4


def describe_run(config: Config, workdir: Workdir, classes: tuple[str, ...]) -> Tracked | None:
    """Describe a run for its trackers; None if it has none.

    Raises:
      UserError: if the library of a tracker is not installed.
    """
    names = read_names(config.training.trackers)
    if not names:
        return None
    try:
        check_installed(names)
    except UserError as error:
        raise UserError(f"config.training.{error}") from error
    values: dict[str, Any] = {name: value_of(config, name) for name in keys_of(Config)}
    return Tracked(names, workdir.path.name, values, classes)


def draw_samples(
    config: Config, dataset: Dataset, evaluator: Evaluator, variables: dict, logbook: Logbook, step: int
) -> None:
    """Draw image, truth and prediction of some images of the evaluated split for the logbook, the same ones after each evaluation.

    Nothing is drawn without trackers. What goes wrong costs the pictures, and a warning says so.

    Args:
      config: of the run; `evaluation.num_pictures` is the number of images.
      dataset: the data set.
      evaluator: of the split.
      variables: the network's variables.
      logbook: the record of the run.
      step: the evaluated step.
    """
    source = dataset.open_split(config.evaluation.split)
    number = min(config.evaluation.num_pictures, len(source))
    if not logbook.has_trackers or not number:
        return
    chosen = take(source, [i * len(source) // number for i in range(number)])
    try:
        colors = colors_of(dataset.label_space)
        samples = enumerate(evaluator.samples(variables, chosen), 1)
        pictures = {f"predictions/{i}": draw_sample(sample, colors) for i, sample in samples}
    except Exception as error:  # of a library that draws, or of a file
        log.warning("no pictures for the trackers after step %d (%s)", step, reason_of(error))
        return
    logbook.draw(step, pictures)


def draw_sample(sample: Sample, colors: np.ndarray) -> Image.Image:
    """Draw three panels side by side: the image, and the classes of the truth and of the prediction over it."""
    image = picture_of(sample.image)
    panels = [
        Image.fromarray(x) for x in (image, overlay(image, sample.truth, colors), overlay(image, sample.labels, colors))
    ]
    width = min(MAX_WIDTH_PX, panels[0].width)
    height = max(1, round(panels[0].height * width / panels[0].width))
    sheet = Image.new("RGB", (3 * width + 2 * GAP_PX, height), "white")
    for i, panel in enumerate(panels):
        sheet.paste(panel.resize((width, height)), (i * (width + GAP_PX), 0))
    return sheet
