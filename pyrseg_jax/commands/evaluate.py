"""`--mode=evaluate`: score a checkpoint on a whole split."""

import logging

from pyrseg_jax.distributed import mesh as mesh_lib
from pyrseg_jax.distributed import processes
from pyrseg_jax.errors import UserError
from pyrseg_jax.reporting.evaluation_table import print_table
from pyrseg_jax.run import experiment
from pyrseg_jax.run.calibration import read_temperatures
from pyrseg_jax.run.class_weights import find_class_weights
from pyrseg_jax.run.config import Config
from pyrseg_jax.run.data_checks import check_evaluation_data, open_data_of_run
from pyrseg_jax.run.evaluations import draw_evaluation, make_evaluator, with_context, write_result
from pyrseg_jax.run.naming import naming
from pyrseg_jax.run.restore import restore
from pyrseg_jax.run.workdir import Workdir

log = logging.getLogger(__name__)


@naming("data")
def evaluate(config: Config, workdir: Workdir, step: int | None = None) -> dict:
    """Evaluate a checkpoint on the split that the config names; print its table, then write it; return the result.

    Args:
      config: the run's configuration.
      workdir: the run's folder.
      step: step of the checkpoint; by default the newest.

    Raises:
      UserError: if the data set has other classes than the run, or the run has no checkpoint. Also if the result cannot be
        written; its table is printed before.
    """
    label_space = workdir.read_label_space()
    workdir.read_initialization()  # the result repeats it; a damaged file must not be found at the end
    if processes.is_first():
        _say_if_unwritable(workdir)
    dataset = open_data_of_run(config, workdir)
    source = dataset.open_split(config.evaluation.split)
    check_evaluation_data(config, dataset)
    mesh = experiment.make_mesh(config.parallel)
    model = experiment.make_model(config, label_space)
    trained = restore(config, model, workdir, mesh_lib.replicated(mesh), step)
    variables = mesh_lib.whole_on(mesh_lib.local_mesh(mesh), trained.variables)
    step = trained.step
    log.info("evaluating step %d on %d images of %s", step, len(source), config.evaluation.split)
    temperatures = None
    if config.evaluation.calibration:
        temperatures = read_temperatures(config, workdir, trained, model.num_predicted_levels)
    class_weights = find_class_weights(config, dataset, workdir)
    evaluator = make_evaluator(config, model, dataset, mesh, class_weights, temperatures)
    result = with_context(evaluator(variables, config.evaluation.analysis), config, workdir, step, dataset.place)
    if processes.is_first():
        try:
            print_table(result)
        finally:  # a closed pipe costs the table, not the result
            written = write_result(result, config, workdir)
            log.info("the result is in %s", written)
        draw_evaluation(config, workdir, written, result)
    return result


def _say_if_unwritable(workdir: Workdir) -> None:
    """Warn before the evaluation rather than after it; its table is worth having even so."""
    try:
        workdir.check_writable(for_training=False)
    except UserError as error:
        log.warning("%s; the result will be printed, but not stored", error)
