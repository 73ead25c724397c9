"""`pyrseg report RUN`: write one HTML page about a run, which works without a network."""

import logging
from pathlib import Path

import jax
from etils import epath

from pyrseg_jax.data.catalog import Dataset
from pyrseg_jax.errors import UserError, escaped
from pyrseg_jax.report.build import NAME, Tools, build, write
from pyrseg_jax.report.collect import collect, config_of_result
from pyrseg_jax.report.examples import Segment
from pyrseg_jax.run import experiment
from pyrseg_jax.run.config import Config
from pyrseg_jax.run.image_space import known_image_space
from pyrseg_jax.run.model_predictor import make_predictor
from pyrseg_jax.run.naming import naming
from pyrseg_jax.run.restore import restore
from pyrseg_jax.run.workdir import Workdir
from pyrseg_jax.storage.paths import is_remote, is_there, storage_path
from pyrseg_jax.storage.regular_file import obstacle

log = logging.getLogger(__name__)


@naming("data")
def report(
    config: Config,
    workdir: Workdir,
    which: str | None = None,
    output: str | None = None,
    num_images: int = 24,
    overwrite: bool = False,
) -> None:
    """Write the report of a run, and print its path. What cannot be read or segmented is left out, and a warning says so.

    Args:
      config: the run's configuration.
      workdir: the run's folder.
      which: the result that the report is about, see `compared_runs.read_run`; by default the newest.
      output: the file; None for `report.html` in the workdir, which replaces an earlier report.
      num_images: the largest number of examples; 0 reads neither the data set nor the checkpoint.
      overwrite: whether a file at `output` may be replaced.

    Raises:
      UserError: if the chosen result or the classes cannot be read, or the page cannot be written.
    """
    path = _check_output(workdir, output, overwrite)
    collected = collect(workdir, config, which)
    config = config_of_result(config, collected.values)
    step = collected.values.get("step")
    space = known_image_space(config, workdir) if num_images else None

    def open_dataset() -> Dataset:
        dataset = experiment.open_data(config.data, image_space=space)
        if dataset.label_space.names != collected.label_space.names:
            raise UserError(
                f"the data set in {dataset.place} has other classes than the run: give its place with --config.data.root=DIR"
            )
        return dataset

    def make_segment(dataset: Dataset) -> Segment:
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        trained = restore(config, None, workdir, sharding, step)
        network = experiment.make_model(config, dataset.label_space)
        return make_predictor(
            config, network, trained.variables, dataset.label_space, image_space=dataset.image_space
        ).segment

    write(build(collected, config, Tools(open_dataset, make_segment) if num_images else None, num_images), path)
    print(escaped(str(path)), flush=True)


def _check_output(workdir: Workdir, output: str | None, overwrite: bool) -> Path | epath.Path:
    """Return the path of the page; raise UserError if something there must not be replaced."""
    if output is None:
        return workdir.path / NAME
    path = storage_path(output) if is_remote(output) else Path(output).expanduser()
    if isinstance(path, Path) and (found := obstacle(path)):
        raise UserError(f"--output={output} is {found}: name a file, such as report.html")
    if is_there(epath.Path(path)) and not overwrite:
        raise UserError(f"--output={output} exists: name another file, or give --overwrite to replace it")
    return path
