"""Build the report of a run: read its files, segment examples, and write the page."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from etils import epath

from pyrseg_jax.data.catalog import TRAINING, Dataset
from pyrseg_jax.data.checks import recall_report
from pyrseg_jax.data.report import DatasetReport
from pyrseg_jax.errors import UserError, reason_of
from pyrseg_jax.report.choice import Chosen, choose, most_frequent
from pyrseg_jax.report.collect import Collected, collect
from pyrseg_jax.report.examples import Segment, read_split, segment_examples, spread_places
from pyrseg_jax.report.page import Gallery, assemble
from pyrseg_jax.report.pyramids import thresholds_of
from pyrseg_jax.run.config import Config
from pyrseg_jax.run.workdir import Workdir
from pyrseg_jax.storage.atomic import write_bytes_atomically

log = logging.getLogger(__name__)

NAME = "report.html"
NUM_IMAGES = 24


class Tools(NamedTuple):
    """What examples are made with. Both are opened only when they are needed, and either may fail without ending the report.

    open_dataset: opens the data set.
    make_segment: given the data set, returns a function that segments an image as the result did.
    """

    open_dataset: Callable[[], Dataset]
    make_segment: Callable[[Dataset], Segment]


def build(collected: Collected, config: Config, tools: Tools | None, num_images: int) -> bytes:
    """Return the page.

    Args:
      collected: what the run has written.
      config: the configuration with which its result was computed; see `collect.config_of_result`.
      tools: what examples are made with; None leaves out the data set, too.
      num_images: the largest number of examples.
    """
    gallery = Gallery() if tools is None else _make_gallery(collected, config, tools, num_images)
    for note in gallery.notes:
        log.warning("%s", note)
    return assemble(collected, gallery).encode()


def write(page: bytes, path: Path | epath.Path) -> None:
    """Write a page.

    Raises:
      UserError: if it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes_atomically(path, page)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror or error}): make room or restore access, or name another file with "
            "--output"
        ) from error
    log.info("the report is in %s", path)


def report_training(
    config: Config, workdir: Workdir, which: str, dataset: Dataset, make_segment: Callable[[Dataset], Segment]
) -> None:
    """Write the report at the end of a training. Whatever prevents it is logged: the run is complete without it.

    Args:
      config: the configuration of the run; with `evaluation.num_pictures=0` the report has no examples.
      workdir: the run's folder.
      which: the name of the last result.
      dataset: the data set.
      make_segment: see `Tools`.
    """
    try:
        workdir.check_present()
        num_images = NUM_IMAGES if config.evaluation.num_pictures else 0
        tools = Tools(lambda: dataset, make_segment)
        write(build(collect(workdir, config, which), config, tools, num_images), workdir.path / NAME)
    except Exception as error:  # the page is made from files and pictures, and libraries raise errors of any type
        log.warning("the report could not be written (%s); the run is complete without it", reason_of(error))


def _make_gallery(collected: Collected, config: Config, tools: Tools, num_images: int) -> Gallery:
    """Choose, find and segment the examples; whatever is missing becomes a note."""
    thresholds = thresholds_of(config.evaluation.threshold)
    try:
        dataset = tools.open_dataset()
    except UserError as error:
        return Gallery(thresholds=thresholds, notes=[f"The report shows no images: {error}"])
    found = Gallery(reports=_reports_of(dataset, config.evaluation.split), thresholds=thresholds)
    if not num_images:
        return found
    notes: list[str] = []
    with _noting(notes):
        source, space = dataset.open_split(config.evaluation.split), dataset.label_space
        counts = None if collected.run is None else collected.run.images
        if counts is None or collected.run is None:
            examples = segment_examples(
                source, space, spread_places(source, num_images), tools.make_segment(dataset), thresholds
            )
            return found._replace(examples=examples)
        places, report = read_split(source, space)
        found = found._replace(places=places, reports={**found.reports, config.evaluation.split: report})
        missing = sum(digest not in places for digest in counts.digests)
        if missing:
            notes.append(
                f"{missing:,} of the {len(counts.digests):,} evaluated images are not in {dataset.place} "
                f"({config.evaluation.split}) now: the files have changed, or this is another data set"
            )
        confusions = most_frequent(np.array(collected.values["confusion"], np.int64), 4 * num_images)
        chosen: dict[str, Chosen] = {}
        for one in choose(counts, confusions, num_images):
            chosen.setdefault(counts.digests[one.number], one)
        shown = {digest: places[digest] for digest in chosen if digest in places}
        if shown:
            examples = segment_examples(source, space, shown, tools.make_segment(dataset), thresholds)
            found = found._replace(examples=examples, chosen=chosen)
    return found._replace(notes=notes)


@contextlib.contextmanager
def _noting(notes: list[str]) -> Iterator[None]:
    """Turn an error into a note: a report without examples is better than none."""
    try:
        yield
    except UserError as error:
        notes.append(f"The report shows no examples: {error}")


def _reports_of(dataset: Dataset, split: str) -> dict[str, DatasetReport]:
    """Return the reports of the training split and another one, as far as they are known; no file is read for them."""
    found = {}
    for name in dict.fromkeys((TRAINING, split)):
        with contextlib.suppress(UserError):
            known = dataset.reports.get(name) or recall_report(dataset.open_split(name), dataset.label_space)
            if known is not None:
                found[name] = known
    return found
