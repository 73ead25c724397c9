"""The `predict` mode: segment images with the model of a run."""

import logging
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from pyrseg_jax.data.decode import decode_image, decode_label
from pyrseg_jax.data.label_space import LabelSpace
from pyrseg_jax.errors import UserError
from pyrseg_jax.reporting.pictures import save_pictures
from pyrseg_jax.run import experiment
from pyrseg_jax.run.config import Config
from pyrseg_jax.run.predictor import make_predictor
from pyrseg_jax.run.restore import restore
from pyrseg_jax.run.workdir import Workdir

log = logging.getLogger(__name__)
# Common formats of photographs. PIL reads more formats, but a folder may contain other kinds of files, too.
SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"}


def predict(
    config: Config, workdir: Workdir, source: str, target: str, step: int | None = None, overwrite: bool = False
) -> None:
    """Segment an image, or each image of a folder, and write three files per image to the folder `target`.

    An image that cannot be read is logged and skipped, so that the others are finished.

    Args:
      config: the run's configuration.
      workdir: the run's folder.
      source: path of an image, or of a folder of images.
      target: path of the folder to write to; it is created if needed.
      step: step of the checkpoint; by default the newest.

    Raises:
      UserError: if there are no images, if two images would write the same files, or if the run has no checkpoint; also at the
        end, if images were skipped.
    """
    images = _find_images(Path(source).expanduser())
    folder = Path(target).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output={target} cannot be created ({error.strerror}): name another folder") from error
    if folder.resolve() in {path.parent.resolve() for path in images}:
        raise UserError(
            f"--output={target} is the folder of the input, where NAME.png could overwrite an image: name another folder"
        )

    label_space = workdir.read_label_space()
    model = experiment.make_model(config.model, label_space.num_classes)
    trained = restore(config, model, workdir, jax.sharding.SingleDeviceSharding(jax.local_devices()[0]), step)
    predictor = make_predictor(config, model, trained.variables, label_space)
    log.info("segmenting %d images with step %d", len(images), trained.step)
    problems = []
    for path in tqdm(images, unit=" images", disable=None):
        try:
            image = decode_image(path.read_bytes(), str(path))
        except (UserError, OSError) as error:
            problems.append(str(error))
            log.error("%s", error)
            continue
        truth = _find_truth(path, image.shape[:2], label_space)
        save_pictures(folder, path.stem, predictor.segment(image), truth)
    log.info("segmented %d of %d images into %s", len(images) - len(problems), len(images), folder)
    if problems:
        raise UserError(f"{len(problems)} of {len(images)} images could not be read; the first: {problems[0]}")


def _find_images(source: Path) -> list[Path]:
    """List the images to segment; no two of them have the same name."""
    if source.is_dir():
        images = sorted(p for p in source.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
        if not images:
            raise UserError(f"--input={source} holds no images: expected files ending in {', '.join(sorted(SUFFIXES))}")
    elif source.is_file():
        images = [source]
    else:
        raise UserError(f"--input={source}: there is no such file or folder ({source.absolute()})")
    by_stem: dict[str, Path] = {}
    for path in images:
        if path.stem in by_stem:
            raise UserError(
                f"{path} and {by_stem[path.stem].name} would both write {path.stem}.png: rename one, or predict them "
                "separately"
            )
        by_stem[path.stem] = path
    return images


def _find_truth(image: Path, size: tuple[int, int], label_space: LabelSpace) -> np.ndarray | None:
    """Find the label map of an image in a data set with the layout of `folder`; None unless there is one of the same size."""
    path = image.absolute()
    label = path.parents[2] / "annotations" / path.parent.name / f"{path.stem}.png" if len(path.parents) > 2 else None
    if label is None or path.parents[1].name != "images" or not label.is_file():
        return None
    try:
        truth = decode_label(label.read_bytes(), str(label), label_space)
    except (UserError, OSError) as error:
        log.warning("the ground truth cannot be drawn: %s", error)
        return None
    return truth if truth.shape == size else None
