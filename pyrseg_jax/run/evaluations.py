"""Evaluations of a run: the evaluator that its config describes, the context of a result, and its figures."""

import logging

import jax
from jax.sharding import Mesh

from pyrseg_jax.data.catalog import Dataset
from pyrseg_jax.data.decode import decode_pair
from pyrseg_jax.data.holdout import take
from pyrseg_jax.distributed import mesh as mesh_lib
from pyrseg_jax.errors import UserError, naming_file
from pyrseg_jax.evaluation.evaluator import Evaluator
from pyrseg_jax.models.segmenter import Segmenter
from pyrseg_jax.reporting.analysis_figures import draw_analysis
from pyrseg_jax.reporting.pictures import names_of_pictures, save_pictures
from pyrseg_jax.run import experiment
from pyrseg_jax.run.config import Config
from pyrseg_jax.run.predictor import make_predictor
from pyrseg_jax.run.workdir import Workdir
from pyrseg_jax.storage.names import file_name_of
from pyrseg_jax.storage.paths import local_folder

log = logging.getLogger(__name__)


def make_evaluator(config: Config, model: Segmenter, dataset: Dataset, mesh: Mesh) -> Evaluator:
    """Build the evaluator of the split that the config names.

    With several processes, each evaluates every n-th image of the split on its own devices.

    Args:
      config: the run's configuration.
      model: the network.
      dataset: the data set with the split.
      mesh: the mesh of the whole run; the evaluator uses the part that belongs to this process.
    """
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
    )


def with_context(result: dict, config: Config, workdir: Workdir, step: int) -> dict:
    """Add to a result what a reader needs to compare it with others: the step, the protocol and the initial weights."""
    protocol = experiment.describe_protocol(config) | {"initialisation": workdir.read_initialization()}
    return result | {"step": step, "protocol": protocol}


def draw_evaluation(config: Config, workdir: Workdir, step: int, result: dict) -> None:
    """Draw the figures of an evaluation, unless the config switches the analysis off or no pixel was counted."""
    if config.evaluation.analysis and sum(map(sum, result["confusion"])):
        folder = workdir.figures_of(config.evaluation.split, step)
        with local_folder(folder) as place:
            draw_analysis(place, result)
        log.info("figures of the analysis are in %s", folder)


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
    predictor = make_predictor(config, model, variables, dataset.label_space)
    with local_folder(workdir.figures) as place:
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
                missing = {workdir.figures: str(error)}
            for problem in missing.values():
                log.warning("%s", problem)
            num_drawn += not missing
    log.info("pictures of %d predictions are in %s", num_drawn, workdir.figures)
