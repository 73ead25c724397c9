"""Check the splits of a data set that a run uses, and collect the hints on them."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from pyrseg_jax.data.checks import check_once, recall_report
from pyrseg_jax.data.hints import hints_between, lost_hints, need_labels, split_hints
from pyrseg_jax.data.holdout import Subset, lost_classes
from pyrseg_jax.data.report import DatasetReport
from pyrseg_jax.data.source import Source
from pyrseg_jax.data.spec import TRAINING, Dataset
from pyrseg_jax.errors import UserError

# A split with its report; None for what is not known.
Checked: TypeAlias = tuple[Source | None, DatasetReport | None]


def inspect_for_training(dataset: Dataset, evaluated: str) -> list[tuple[str, str]]:
    """Check every file of the training split and of the split that is evaluated meanwhile.

    Returns:
      (split, hint) for everything that looks like a mistake.

    Raises:
      UserError: for a file that cannot be used, if nothing is labeled in the training split, or if the other split has no end.
    """
    dataset.check_has_end(evaluated)
    checked = {split: _check(dataset, split) for split in dict.fromkeys((TRAINING, evaluated))}
    source, report = checked[TRAINING]
    if report is not None:
        need_labels(report, dataset.label_space, source, f"{dataset.place} ({TRAINING})")
    return _hints_on(dataset, checked)


def inspect_for_evaluation(dataset: Dataset, split: str) -> list[tuple[str, str]]:
    """Check every file of a split, and return the hints as `inspect_for_training` does.

    The training split is compared with it if its report is known, but not read for it.
    """
    dataset.check_has_end(split)
    checked: dict[str, Checked] = {split: _check(dataset, split)}
    if split != TRAINING:
        checked[TRAINING] = _recall(dataset)
    return [(name, hint) for name, hint in _hints_on(dataset, checked) if name == split]


def hints_on(
    dataset: Dataset, splits: Sequence[str], reports: dict[str, DatasetReport | None]
) -> list[tuple[str, str]]:
    """Return (split, hint) for splits whose reports are known."""
    return _hints_on(dataset, {split: (dataset.open_split(split), reports.get(split)) for split in splits})


def _check(dataset: Dataset, split: str) -> tuple[Source, DatasetReport | None]:
    source = dataset.open_split(split)
    found = check_once(source, dataset.label_space, f"{dataset.place} ({split})")
    return source, found or dataset.reports.get(split)


def _recall(dataset: Dataset) -> Checked:
    try:
        source = dataset.open_split(TRAINING)
        return source, dataset.reports.get(TRAINING) or recall_report(source, dataset.label_space)
    except UserError:  # this data set has no such split, or it is broken, which does not matter here
        return None, None


def _hints_on(dataset: Dataset, checked: Mapping[str, Checked]) -> list[tuple[str, str]]:
    training_source, training = checked.get(TRAINING, (None, None))
    lines = []
    if training is None and dataset.whole_training is not None and isinstance(training_source, Subset):
        lost = lost_classes(dataset.whole_training, training_source.indices)
        lines += [(TRAINING, hint) for hint in lost_hints(lost, dataset.label_space)]
    for split, (source, found) in checked.items():
        if source is None or found is None:
            continue
        lines += [(split, hint) for hint in split_hints(found, dataset.label_space, source)]
        if split != TRAINING and training is not None and training_source is not None:
            between = hints_between(found, source, training, training_source, dataset.label_space)
            lines += [(split, hint) for hint in between]
    return lines
