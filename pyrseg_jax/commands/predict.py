"""The `predict` mode: segment images with the model of a run."""

import errno
import functools
import logging
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from pyrseg_jax.data.decode import decode_label, decode_masked
from pyrseg_jax.data.label_space import LabelSpace
from pyrseg_jax.data.listing import say_passed_over
from pyrseg_jax.errors import UserError, naming_file
from pyrseg_jax.reporting.pictures import encode_in_place, name_of_geotiff, save_pictures
from pyrseg_jax.run import experiment, prediction_files
from pyrseg_jax.run.config import Config
from pyrseg_jax.run.image_space import known_image_space
from pyrseg_jax.run.prediction_files import Planned
from pyrseg_jax.run.predictor import Predictor, make_predictor
from pyrseg_jax.run.restore import restore
from pyrseg_jax.run.workdir import Workdir
from pyrseg_jax.storage.atomic import remove_leftovers
from pyrseg_jax.storage.paths import is_remote
from pyrseg_jax.storage.regular_file import read_regular_file, unreadable
from pyrseg_jax.storage.written import WrittenFiles

log = logging.getLogger(__name__)
# After one of these, no other file could be written either.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def predict(
    config: Config, workdir: Workdir, source: str, target: str, step: int | None = None, overwrite: bool = False
) -> None:
    """Segment an image, or each image of a folder, and write three files per image to the folder `target`.

    Before anything is computed, the paths of all files are checked: no two of them are the same, none is an input or ground truth,
    and files that are there already were written by an earlier `predict`, as the record `predictions.jsonl` shows. An image that
    cannot be finished is logged, and the others are finished.

    Args:
      config: the run's configuration.
      workdir: the run's folder.
      source: path of an image, or of a folder of images.
      target: path of the folder to write to; it is created if needed.
      step: step of the checkpoint; by default the newest.
      overwrite: whether to replace files in `target` that an earlier `predict` did not write. Inputs and ground truth never are.

    Raises:
      UserError: if there are no images, if a file must not be written, or if the run has no checkpoint; also at the end, if an
        image could not be finished.
    """
    images = prediction_files.find_images(_local("input", source))
    if images.others:
        log.warning("%s", say_passed_over(f"--input={source}", images.others))
    folder = _local("output", target)
    planned = prediction_files.plan(images.paths)
    written = _open_output(config, workdir, folder, planned, overwrite)

    label_space, image_space = workdir.read_label_space(), known_image_space(config, workdir)
    model = experiment.make_model(config, label_space)
    trained = restore(config, model, workdir, jax.sharding.SingleDeviceSharding(jax.local_devices()[0]), step)
    predictor = make_predictor(config, model, trained.variables, label_space, image_space)
    log.info("segmenting %d images with step %d", len(planned), trained.step)
    num_complete, problems = _predict_each(predictor, planned, folder, written, overwrite)
    log.info("segmented %d of %d images into %s", num_complete, len(planned), folder)
    if problems:
        num_left = len(planned) - num_complete
        raise UserError(f"{num_left} of {len(planned)} images could not be finished; the first: {problems[0]}")


def _predict_each(
    predictor: Predictor, planned: list[Planned], folder: Path, written: WrittenFiles, overwrite: bool
) -> tuple[int, list[str]]:
    """Segment each image and log each problem; return the number of images that are complete, and the problems."""
    num_complete, problems = 0, []
    write = functools.partial(written.write, overwrite=overwrite)
    for item in tqdm(planned, unit=" images", disable=None):
        try:
            missing = list(_predict_one(predictor, item, folder, write, written.discard).values())
            is_last = False
        except UserError as error:
            missing = [str(error)]
            is_last = isinstance(error.__cause__, OSError) and error.__cause__.errno in FULL
        except BaseException as error:  # after Ctrl-C, the last line repeats this note
            error.add_note(f"{num_complete} of {len(planned)} images are complete")
            raise
        for problem in missing:
            log.error("%s", problem)
        problems += missing
        num_complete += not missing
        if is_last:
            break
    return num_complete, problems


def _predict_one(
    predictor: Predictor,
    item: Planned,
    folder: Path,
    write: Callable[[Path, bytes], None],
    discard: Callable[[Path], None],
) -> dict[Path, str]:
    """Segment one image, and return the pictures that could not be drawn; what an earlier run drew is discarded.

    Raises:
      UserError: if the image cannot be read or segmented, or its files cannot be written.
    """
    with naming_file(str(item.image), "cannot be segmented", "replace it, or move it out of the folder"):
        data = _read(item.image)
        result = predictor.segment_masked(decode_masked(data, str(item.image), predictor.image_space))
        truth = _read_truth(item.truth, result.labels.shape, predictor.label_space)
    with naming_file(f"the result of {item.image}", "cannot be written", "make room, or name another folder"):
        missing = save_pictures(folder, item.name, result, truth, item.image.stem, write)
        if (placed := encode_in_place(data, str(item.image), result)) is not None:
            write(folder / name_of_geotiff(item.name), placed)
        for path in missing:
            discard(path)  # it would show an earlier prediction
    return missing


def _local(flag: str, value: str) -> Path:
    if not value or is_remote(value):
        raise UserError(f"--{flag}={value}: expected a path on a disk")
    return Path(value).expanduser()


def _open_output(
    config: Config, workdir: Workdir, folder: Path, planned: list[Planned], overwrite: bool
) -> WrittenFiles:
    """Check the paths of all files, then create the folder, and return the record of what is written there."""
    kept = {} if is_remote(workdir.path) else prediction_files.folders_of_run(Path(workdir.path))
    if config.data.root and not is_remote(config.data.root):
        kept |= prediction_files.folders_of_data_set(Path(config.data.root).expanduser())
    try:
        written = WrittenFiles(folder / prediction_files.RECORD)
        prediction_files.check_plan(planned, folder, written, overwrite, kept)
        folder.mkdir(parents=True, exist_ok=True)
        if written.is_found:  # a `predict` that was killed may have left partial files
            remove_leftovers(folder)
        written.start()
    except OSError as error:
        raise UserError(f"--output={folder} cannot be written ({error.strerror}): name another folder") from error
    return written


def _read_truth(label: Path | None, size: tuple[int, ...], label_space: LabelSpace) -> np.ndarray | None:
    """Read the label map of an image; None unless it has the size of the image."""
    if label is None:
        return None
    try:
        with naming_file(str(label), "cannot be read", "replace it"):
            truth = decode_label(_read(label), str(label), label_space)
    except UserError as error:
        log.warning("the ground truth cannot be drawn: %s", error)
        return None
    if truth.shape == size:
        return truth
    log.warning(
        "the ground truth cannot be drawn: %s is %d × %d pixels, but the upright image %d × %d (width × height)",
        *(label, *truth.shape[::-1], *size[::-1]),
    )
    return None


def _read(path: Path) -> bytes:
    try:
        return read_regular_file(path)
    except (OSError, MemoryError) as error:
        raise unreadable(path, error) from error
