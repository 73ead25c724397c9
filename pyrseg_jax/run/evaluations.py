"""Evaluations of a run: the evaluator that its config describes, the identity of a result, its file and its figures."""

import contextlib
import dataclasses
import logging
import os
from collections.abc import Iterator

import jax
from etils import epath
from jax.sharding import Mesh

from pyrseg_jax.data.catalog import Dataset
from pyrseg_jax.data.decode import decode_pair
from pyrseg_jax.data.holdout import take
from pyrseg_jax.distributed import mesh as mesh_lib
from pyrseg_jax.errors import UserError, escaped, naming_file, reason_of
from pyrseg_jax.evaluation.evaluator import Evaluator
from pyrseg_jax.evaluation.views import PROTOCOLS
from pyrseg_jax.models.segmenter import Segmenter
from pyrseg_jax.reporting.analysis_figures import draw_analysis
from pyrseg_jax.reporting.pictures import names_of_pictures, save_pictures
from pyrseg_jax.reporting.reliability_figure import draw_reliability
from pyrseg_jax.run import experiment
from pyrseg_jax.run.config import Config, Data, Evaluation
from pyrseg_jax.run.image_counts import write_image_counts
from pyrseg_jax.run.model_predictor import make_predictor
from pyrseg_jax.run.results import Naming
from pyrseg_jax.run.workdir import Workdir
from pyrseg_jax.storage.names import file_name_of
from pyrseg_jax.storage.paths import is_remote, local_folder
from pyrseg_jax.training.validation import make_image_losses

log = logging.getLogger(__name__)

# Keys of a data set that do not change which pairs it holds, or how they are read.
_NEUTRAL_DATA_KEYS = (
    "prepared", "workers", "crop_px", "scale_min", "scale_max", "is_flipped", "color_jitter", "rare_sampling", "rare_temperature",
)  # fmt: skip


def make_evaluator(
    config: Config,
    model: Segmenter,
    dataset: Dataset,
    mesh: Mesh,
    class_weights: tuple[float, ...] | None = None,
    temperatures: tuple[float, ...] | None = None,
) -> Evaluator:
    """Build the evaluator of the split that the config names.

    With several processes, each evaluates every n-th image of the split on its own devices.

    Args:
      config: the run's configuration.
      model: the network.
      dataset: the data set with the split.
      mesh: the mesh of the whole run; the evaluator uses the part that belongs to this process.
      class_weights: those of the training objective, for the validation loss; see `class_weights.find_class_weights`.
      temperatures: T of each level, if confidences are measured and the run is calibrated.
    """
    image_losses = make_image_losses(experiment.make_objective(config, class_weights))
    source = dataset.open_split(config.evaluation.split)
    share = range(len(source))[jax.process_index() :: jax.process_count()]
    return Evaluator(
        model,
        take(source, share) if len(share) < len(source) else source,
        dataset.label_space,
        mesh_lib.local_mesh(mesh),
        experiment.make_evaluation_protocol(config),
        config.evaluation.batch_size,
        config.evaluation.threshold,
        image_losses if config.evaluation.loss else None,
        config.evaluation.calibration,
        temperatures,
    )


def with_context(result: dict, config: Config, workdir: Workdir, step: int, place: str) -> dict:
    """Add to a result what identifies it, and what a reader needs to compare it with others.

    Args:
      result: what the evaluator returns.
      config: the configuration of the evaluation.
      workdir: the run's folder.
      step: the step of the checkpoint.
      place: where the data set was read from.
    """
    protocol = experiment.describe_protocol(config) | {"initialisation": workdir.read_initialization()}
    data = {
        "name": config.data.name,
        "place": escaped(_resolved(place)),
        "split": config.evaluation.split,
        "images": result["images"],
        "fingerprint": result["fingerprint"],
    }
    scores = {name: value for name, value in result.items() if name != "fingerprint"}
    return scores | {"step": step, "protocol": protocol, "data": data}


def write_result(result: dict, config: Config, workdir: Workdir) -> epath.Path:
    """Write a result under the name that its identity asks for, and return the path; see `results.Results.write`.

    The counts of its images go to a file of their own; see `image_counts.py`.

    Raises:
      UserError: if it cannot be written.
    """
    workdir.check_present()
    own = workdir.read_config()
    data = result["data"]
    naming = Naming(
        _name_of_protocol(config.evaluation),
        data["name"],
        experiment.describe_protocol(config) == experiment.describe_protocol(own),
        _data_keys(config.data) == _data_keys(own.data) or workdir.results.holds(data["split"], data["fingerprint"]),
    )
    counts = result.get("image_counts")
    path = workdir.results.write({name: value for name, value in result.items() if name != "image_counts"}, naming)
    if counts is not None:
        write_image_counts(path, tuple(result["iou"]), counts)
    return path


def _name_of_protocol(evaluation: Evaluation) -> str:
    """Name a protocol with those of its settings that differ from the defaults, for a file name."""
    defaults = Evaluation()
    words = {"threshold": "threshold"}
    if "short_side_px" not in PROTOCOLS[evaluation.protocol]:  # otherwise the protocol sets its own sizes
        words |= {"short_side_px": "short", "long_side_px": "long"}
    values, usual = dataclasses.asdict(evaluation), dataclasses.asdict(defaults)
    parts = [f"{word}{values[key]}" for key, word in words.items() if values[key] != usual[key]]
    return "-".join([evaluation.protocol, *parts])


def _data_keys(data: Data) -> dict:
    values = {key: value for key, value in dataclasses.asdict(data).items() if key not in _NEUTRAL_DATA_KEYS}
    return values | {"root": None if data.root is None else _resolved(data.root)}


def _resolved(place: str) -> str:
    return place if is_remote(place) else os.path.realpath(os.path.expanduser(place))


def draw_evaluation(config: Config, workdir: Workdir, written: epath.Path, result: dict) -> None:
    """Draw the figures of an evaluation that the config asks for, unless no pixel was counted.

    Args:
      config: the configuration of the evaluation.
      workdir: the run's folder.
      written: the path of the result, which names the folder of the figures.
      result: the scores.
    """
    if not sum(map(sum, result["confusion"])):
        return
    folder, calibration = workdir.figures_of(written), result.get("calibration")
    if config.evaluation.analysis:
        with costing_only_the_figures(workdir), local_folder(folder) as place:
            draw_analysis(place, result)
            log.info("figures of the analysis are in %s", folder)
    if calibration is not None:
        with costing_only_the_figures(workdir), local_folder(folder) as place:
            draw_reliability(place, calibration, calibration["scaled"])
            log.info("the reliability diagram is in %s", folder)


@contextlib.contextmanager
def costing_only_the_figures(workdir: Workdir) -> Iterator[None]:
    """Log a warning for whatever prevents figures from being drawn: the result is complete without them."""
    try:
        workdir.check_present()
        yield
    except Exception as error:  # Matplotlib raises errors of any type
        log.warning("figures could not be drawn (%s); the scores are complete without them", reason_of(error))


def draw_predictions(config: Config, model: Segmenter, variables: dict, dataset: Dataset, workdir: Workdir) -> None:
    """Draw predictions and ground truth of some images, evenly spread over the evaluation split.

    Args:
      config: the run's configuration; `evaluation.num_pictures` is the number of images.
      model: the network.
      variables: the network's variables, on the devices of this process.
      dataset: the data set with the split.
      workdir: the run's folder, which receives the pictures.
    """
    source = dataset.open_split(config.evaluation.split)
    num_pictures = min(config.evaluation.num_pictures, len(source))
    if not num_pictures:
        return
    with costing_only_the_figures(workdir), local_folder(workdir.figures) as place:
        predictor = make_predictor(config, model, variables, dataset.label_space, image_space=dataset.image_space)
        taken: set[str] = set()
        num_drawn = 0
        for i in range(num_pictures):
            record = source[i * len(source) // num_pictures]
            name = file_name_of(record["name"])
            if not taken.isdisjoint(names_of_pictures(name)):
                log.warning("%s is not drawn: its pictures would replace those of another image", record["name"])
                continue
            taken.update(names_of_pictures(name))
            try:
                with naming_file(record["name"], "cannot be drawn", "the evaluation is complete without it"):
                    pair = decode_pair(record, dataset.label_space)
                    missing = save_pictures(place, name, predictor.segment(pair.image), pair.label, record["name"])
            except UserError as error:
                missing = {place / name: str(error)}
            for problem in missing.values():
                log.warning("%s", problem)
            num_drawn += not missing
        log.info("pictures of %d predictions are in %s", num_drawn, workdir.figures)
