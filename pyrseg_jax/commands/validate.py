"""`--mode=prepare` and `--mode=validate`: check a data set before any training."""

import logging

from pyrseg_jax.data.catalog import TRAINING, Dataset
from pyrseg_jax.data.hierarchy import describe_hierarchy
from pyrseg_jax.data.inspection import hints_on
from pyrseg_jax.data.report import DatasetReport, make_report
from pyrseg_jax.data.report_table import table
from pyrseg_jax.errors import UserError, escaped
from pyrseg_jax.run import experiment
from pyrseg_jax.run.config import Config
from pyrseg_jax.run.naming import complete_names, naming

log = logging.getLogger(__name__)


def prepare(config: Config) -> None:
    """Prepare the data set if it needs preparation, and print the report of its splits; raises UserError as `validate` does."""
    _print_reports(config, experiment.open_data(config.data))


def validate(config: Config) -> None:
    """Read every image and label map of a data set, from its original files if it has any, and print the report.

    Raises:
      UserError: at the end, if there is any problem; each problem is printed on its own line.
    """
    _print_reports(config, experiment.open_data(config.data, is_raw=True))


@naming("data")
def _print_reports(config: Config, dataset: Dataset) -> None:
    problems: list[str] = []
    reports: dict[str, DatasetReport | None] = {}
    for split in dict.fromkeys((TRAINING, config.evaluation.split)):
        try:
            reports[split] = report = _report_of(config, dataset, split)
        except UserError as error:
            problems.append(str(error))
            continue
        print(f"{split} ({escaped(dataset.place)})\n{table(report, dataset.label_space)}\n")
        problems += [message for _, message in report.problems]
    print(f"hierarchy of the classes: {describe_hierarchy(dataset.label_space.hierarchy)}")
    for split, hint in hints_on(dataset, list(reports), reports):
        print(f"hint ({split}): {escaped(complete_names(hint, 'data'))}")
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
    return make_report(dataset.open_split(split), dataset.label_space, split, strides, dataset.checksums(split))
