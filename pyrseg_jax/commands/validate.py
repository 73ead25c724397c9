"""`--mode=prepare` and `--mode=validate`: check a data set before any training."""

import contextlib
import dataclasses
import io
import logging

from etils import epath

from pyrseg_jax.data.catalog import TRAINING, Dataset
from pyrseg_jax.data.hierarchy import describe_hierarchy
from pyrseg_jax.data.inspection import hints_on
from pyrseg_jax.data.report import DatasetReport, make_report
from pyrseg_jax.data.report_table import table
from pyrseg_jax.errors import UserError, escaped
from pyrseg_jax.reporting.samples_figure import samples_figure
from pyrseg_jax.run import experiment
from pyrseg_jax.run.config import Config
from pyrseg_jax.run.naming import complete_names, naming
from pyrseg_jax.run.workdir import Workdir
from pyrseg_jax.storage.atomic import write_bytes_atomically

log = logging.getLogger(__name__)

NUM_SAMPLES = 12  # images in the picture of --draw


def prepare(config: Config) -> None:
    """Prepare the data set if it needs preparation, and print the report of its splits; raises UserError as `validate` does."""
    _print_reports(config, experiment.open_data(config.data), [])


def validate(config: Config, workdir: Workdir | None = None, is_drawing: bool = False) -> None:
    """Read every image and label map of a data set, from its original files if it has any, and print the report.

    Args:
      config: the experiment.
      workdir: the folder for the picture; needed only for `is_drawing`.
      is_drawing: whether to draw the first twelve training images, augmented, before everything is read.

    Raises:
      UserError: at the end, if there is any problem; each problem is printed on its own line.
    """
    dataset = experiment.open_data(config.data, is_raw=True)
    problems: list[str] = []
    if is_drawing and workdir is not None:
        try:
            print(f"picture of augmented training images: {escaped(str(_draw_samples(config, dataset, workdir)))}")
        except UserError as error:
            problems.append(str(error))
    _print_reports(config, dataset, problems)


@naming("data", "augment")
def _draw_samples(config: Config, dataset: Dataset, workdir: Workdir) -> epath.Path:
    """Draw the first training images as the network would see them, into `augmentation.png` of the workdir."""
    path = workdir.path / "augmentation.png"
    # Every image depends on the seed and its place in the order alone, so the batch may have another size here. Threads are
    # enough for a dozen images, and a bad record, which the report names, need not cost the picture.
    data = dataclasses.replace(config.data, workers=0, on_error="skip")
    training = dataclasses.replace(config.training, batch_size=NUM_SAMPLES, accumulate=1)
    batches = experiment.open_batches(dataclasses.replace(config, data=data, training=training), dataset, 0)
    with contextlib.closing(batches):
        batch = next(batches)
    title = f"The first {NUM_SAMPLES} training images, augmented: {config.data.name}, seed {config.seed}"
    picture, content = samples_figure(batch["image"], batch["label"], dataset.label_space, title), io.BytesIO()
    picture.save(content, "PNG")
    try:
        workdir.path.mkdir(parents=True, exist_ok=True)
        write_bytes_atomically(path, content.getvalue())
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror or error}): choose another folder with --workdir"
        ) from error
    return path


@naming("data")
def _print_reports(config: Config, dataset: Dataset, problems: list[str]) -> None:
    """Print the reports of both splits, and all problems; `problems`: those that are known already."""
    reports: dict[str, DatasetReport | None] = {}
    for split in dict.fromkeys((TRAINING, config.evaluation.split)):
        try:
            reports[split] = report = _report_of(config, dataset, split)
        except UserError as error:
            problems.append(complete_names(str(error), "data"))
            continue
        print(f"{split} ({escaped(dataset.place)})\n{table(report, dataset.label_space)}\n")
        problems += [message for _, message in report.problems]
    print(f"hierarchy of the classes: {describe_hierarchy(dataset.label_space.hierarchy)}")
    for split, hint in hints_on(dataset, list(reports), reports):
        print(f"hint ({split}): {escaped(complete_names(hint, 'data'))}")
    problems = list(dict.fromkeys(problems))  # a split that cannot be opened cannot be drawn either
    for problem in problems:
        print(f"problem: {escaped(complete_names(problem, 'data'))}")
    if problems:
        raise UserError(f"{len(problems)} problem(s) in {dataset.place}, the first: {problems[0]}")
    log.info("no problem found in %s", dataset.place)


def _report_of(config: Config, dataset: Dataset, split: str) -> DatasetReport:
    """Return the report that was written at preparation if it counts the same cells; otherwise read the split."""
    strides = config.model.strides[:-1]  # the finest level has no unit-cells: it is always taken
    known = dataset.reports.get(split)
    if known is not None and known.strides == strides:
        return known
    return make_report(dataset.open_counted(split), dataset.label_space, split, strides, dataset.checksums(split))
