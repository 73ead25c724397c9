"""`pyrseg rank`: find labels that look wrong, or unlabeled images that are worth labeling next."""

import logging
from pathlib import Path

from pyrseg_jax.data.listing import say_passed_over
from pyrseg_jax.errors import UserError, escaped, reason_of
from pyrseg_jax.prediction import ranking
from pyrseg_jax.prediction.listing import find_items
from pyrseg_jax.prediction.progress import Progress
from pyrseg_jax.prediction.ranking import RankedImage
from pyrseg_jax.run.config import Config
from pyrseg_jax.run.data_checks import check_evaluation_data, open_data_of_run
from pyrseg_jax.run.model_predictor import ModelPredictor
from pyrseg_jax.run.naming import naming
from pyrseg_jax.run.output_folder import check_output_folder, write_output_folder
from pyrseg_jax.run.trained_predictor import load_predictor
from pyrseg_jax.run.workdir import Workdir
from pyrseg_jax.storage.paths import is_remote, storage_path

log = logging.getLogger(__name__)

IMAGES, REGIONS, EVERYTHING, PICTURE = "images.csv", "regions.csv", "ranking.json", "ranking.png"
NUM_SHOWN = 5  # lines that are printed


@naming("data")
def rank(
    config: Config,
    workdir: Workdir,
    source: str | None,
    target: str,
    step: int | None = None,
    top: int = 24,
    overwrite: bool = False,
) -> list[RankedImage]:
    """Rank the labeled images of a split, or the unlabeled images of a folder; write the ranking, and a picture of the first ones.

    Args:
      config: the run's configuration; `evaluation.split` names the split.
      workdir: the run's folder.
      source: path of an image or a folder of unlabeled images; None ranks the labels of the split.
      target: path of the folder to write to.
      step: step of the checkpoint; by default the newest.
      top: how many images the picture shows, and how many unlabeled ones are chosen so that they differ.
      overwrite: whether files of an earlier ranking may be replaced.

    Raises:
      UserError: if there are no images, a file would be replaced or cannot be written, or there is no model; also at the end, if an
        unlabeled image could not be read.
    """
    names = (IMAGES, EVERYTHING, PICTURE) if source is not None else (IMAGES, REGIONS, EVERYTHING, PICTURE)
    folder = check_output_folder(target, names, overwrite, "ranking")
    if source is None:
        return _rank_labels(config, workdir, folder, step, top)
    return _rank_unlabeled(config, workdir, source, folder, step, top)


def _rank_labels(config: Config, workdir: Workdir, folder: Path, step: int | None, top: int) -> list[RankedImage]:
    dataset, split = open_data_of_run(config, workdir), config.evaluation.split
    source = dataset.open_split(split)
    check_evaluation_data(config, dataset)
    predictor, trained = load_predictor(config, workdir, step)
    log.info("comparing the labels of %d images of %s with step %d", len(source), split, trained.step)
    with Progress(len(source)) as progress:
        ranked = ranking.rank_labels(source, predictor, lambda: progress.add(False))
    space = predictor.label_space
    about = {"kind": "labels", "data": config.data.name, "split": split} | _about(predictor, workdir, trained.step)
    contents = {
        IMAGES: ranking.images_csv(ranked),
        REGIONS: ranking.regions_csv(ranked, space),
        EVERYTHING: ranking.to_json(ranked, space, about),
    }
    title = f"Labels of {split} that look wrong"
    _write(folder, contents, lambda: ranking.draw_labels(ranked[:top], source, predictor, title))
    for name, region in ranking.worst_regions(ranked)[:NUM_SHOWN]:
        left, up, width, height = region.box
        print(
            f"{region.score:6.2f}  {escaped(name)}: labeled {escaped(space.names[region.label])}, predicted "
            f"{escaped(space.names[region.predicted])}, {width} × {height} pixels at ({left}, {up})"
        )
    return ranked


def _rank_unlabeled(
    config: Config, workdir: Workdir, source: str, folder: Path, step: int | None, top: int
) -> list[RankedImage]:
    if not source:
        raise UserError("--input=: expected a path")
    found = find_items(storage_path(source) if is_remote(source) else Path(source).expanduser(), folder)
    for note in found.notes:
        log.warning("%s", say_passed_over(f"--input={source}", note) if "passed over" not in note else note)
    items = [item for item in found.items if not item.is_video]
    if len(items) < len(found.items):
        log.warning("--input=%s: %d videos are not ranked, only images", source, len(found.items) - len(items))
    predictor, trained = load_predictor(config, workdir, step)
    log.info("ranking %d images with step %d", len(items), trained.step)
    with Progress(len(items)) as progress:
        ranked, problems = ranking.rank_unlabeled(items, predictor, top, lambda: progress.add(False))
    for problem in problems:
        log.error("%s", problem)
    if ranked:
        about = {"kind": "unlabeled", "chosen": min(top, len(ranked))} | _about(predictor, workdir, trained.step)
        contents = {
            IMAGES: ranking.images_csv(ranked),
            EVERYTHING: ranking.to_json(ranked, predictor.label_space, about),
        }
        title = "Images worth labeling next"
        _write(folder, contents, lambda: ranking.draw_unlabeled(ranked[:top], items, predictor, title))
        for image in ranked[:NUM_SHOWN]:
            print(f"{image.score:6.3f}  {escaped(image.name)}")
    if problems:
        raise UserError(f"{len(problems)} of {len(items)} images could not be ranked; the first: {problems[0]}")
    return ranked


def _about(predictor: ModelPredictor, workdir: Workdir, step: int) -> dict:
    return {
        "run": str(workdir.path),
        "step": step,
        "protocol": predictor.protocol,
        "threshold": predictor.threshold,
        "temperatures": predictor.temperatures,
    }


def _write(folder: Path, contents: dict[str, bytes], draw) -> None:
    """Write the files. A picture that cannot be drawn costs only the picture."""
    try:
        contents = contents | {PICTURE: draw()}
    except Exception as error:  # Matplotlib raises errors of any type
        log.warning("the picture could not be drawn (%s): the other files are complete", reason_of(error))
        (folder / PICTURE).unlink(missing_ok=True)  # an older one would show another ranking
    write_output_folder(folder, contents)
    log.info("the ranking is in %s", folder)
