"""`pyrseg calibrate`: fit one temperature per level of the pyramid, so that confidences are true, and store them with the run."""

import logging

import jax

from pyrseg_jax.evaluation.calibrator import Calibrator
from pyrseg_jax.reporting.reliability_figure import draw_reliability
from pyrseg_jax.run import experiment
from pyrseg_jax.run.calibration import Calibration, write_calibration
from pyrseg_jax.run.config import Config
from pyrseg_jax.run.data_checks import check_evaluation_data, open_data_of_run
from pyrseg_jax.run.evaluations import costing_only_the_figures
from pyrseg_jax.run.naming import naming
from pyrseg_jax.run.restore import restore
from pyrseg_jax.run.workdir import CALIBRATION, Workdir
from pyrseg_jax.storage.paths import local_folder

log = logging.getLogger(__name__)


@naming("data")
def calibrate(config: Config, workdir: Workdir, step: int | None = None) -> Calibration:
    """Fit the temperatures of a checkpoint on the split that the config names; print, store and draw what they change.

    Args:
      config: the run's configuration.
      workdir: the run's folder.
      step: step of the checkpoint; by default the newest.

    Raises:
      UserError: if the data set has other classes than the run or no labeled pixel, the run has no checkpoint, or the result cannot
        be written.
    """
    workdir.check_writable(for_training=False)
    dataset = open_data_of_run(config, workdir)
    source = dataset.open_split(config.evaluation.split)
    check_evaluation_data(config, dataset)
    model = experiment.make_model(config, dataset.label_space)
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    trained = restore(config, model, workdir, sharding, step)
    protocol, evaluation = experiment.make_evaluation_protocol(config), config.evaluation
    log.info("fitting the temperatures of step %d on %d images of %s", trained.step, len(source), evaluation.split)
    calibrator = Calibrator(model, source, dataset.label_space, protocol, evaluation.batch_size, evaluation.threshold)
    found = write_calibration(config, workdir, trained, calibrator(trained.variables))
    print(table(found), flush=True)
    with costing_only_the_figures(workdir), local_folder(workdir.figures / "calibration") as folder:
        draw_reliability(folder, found.before.model_dump(), found.after.model_dump())
    log.info(
        "the temperatures are in %s, the reliability diagram is in %s", workdir.path / CALIBRATION, workdir.figures
    )
    return found


def table(found: Calibration) -> str:
    """Return the temperatures and the calibration errors as a table."""
    total = sum(found.pixels)
    lines = ["level  temperature   pixels  ECE before   after"]
    for level, (temperature, pixels, before, after) in enumerate(
        zip(found.temperatures, found.pixels, found.before.level_ece, found.after.level_ece, strict=True), 1
    ):
        lines.append(f"{level:5}  {temperature:11.3f}  {pixels / total:6.1%}  {_percent(before)}  {_percent(after)}")
    lines.append(f"  all                        {_percent(found.before.ece)}  {_percent(found.after.ece)}")
    lines.append(f"mean -log p(label): {found.before.nll:.4f} → {found.after.nll:.4f}; every label stays as it was")
    return "\n".join(lines)


def _percent(value: float | None) -> str:
    return "        –" if value is None else f"{100 * value:8.2f} %"
