"""The report of the training split, for what is computed from its classes."""

import logging

from pyrseg_jax.data.checks import report_once
from pyrseg_jax.data.report import DatasetReport, make_report
from pyrseg_jax.data.source import FileSource
from pyrseg_jax.data.spec import TRAINING, Dataset

log = logging.getLogger(__name__)


def training_report(dataset: Dataset, *, has_contents: bool = False) -> DatasetReport:
    """Return the report of the training split: the one that is known, or else all label maps are read for it.

    Args:
      dataset: the data set.
      has_contents: whether the report must say which classes each image shows. Those that earlier versions wrote do not.

    Raises:
      UserError: if the split cannot be opened.
    """
    known = dataset.reports.get(TRAINING)
    if known is not None and (not has_contents or len(known.contents) == known.num_images):
        return known
    source = dataset.open_counted(TRAINING)
    if isinstance(source, FileSource):
        return report_once(source, dataset.label_space, f"{dataset.place} ({TRAINING})")
    log.info("reading the label maps of %d pairs of %s (%s) for their classes", len(source), dataset.place, TRAINING)
    return make_report(source, dataset.label_space, TRAINING)
