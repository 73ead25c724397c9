"""Find bad files before they cost time: read the user's files once, and again only after they change."""

import functools
import hashlib
import json
import logging
import time
from pathlib import Path

from pyrseg_jax.data.holdout import take
from pyrseg_jax.data.label_space import LabelSpace
from pyrseg_jax.data.loading import load_pair
from pyrseg_jax.data.records import Check
from pyrseg_jax.data.report import STRIDES, DatasetReport, make_report, say_first
from pyrseg_jax.data.rules import describe_rules
from pyrseg_jax.data.source import FileSource, Source
from pyrseg_jax.errors import UserError
from pyrseg_jax.storage import documents
from pyrseg_jax.storage.atomic import write_atomically
from pyrseg_jax.storage.caches import cache_folder

log = logging.getLogger(__name__)
# The system notes changes of files with a clock that ticks up to 100 times per second. After two ticks, a change is a later one.
TICKS_S = 0.02
MAX_REMEMBERED = 200  # splits; about a megabyte for one of ADE20K's size


def check_once(source: Source, label_space: LabelSpace, what: str) -> DatasetReport | None:
    """Read all files of a split and raise if one of them cannot be used; files that passed before are not read again.

    A source that is not a `FileSource` was prepared, and checked then. It is trusted.

    Args:
      source: the split.
      label_space: the classes of its label files.
      what: name of the split, for messages.

    Returns:
      The report of the split, or None for a source that is trusted.

    Raises:
      UserError: with the first problem, and how many more there are.
    """
    if not isinstance(source, FileSource):
        return None
    found = report_once(source, label_space, what)
    if found.problems:
        raise UserError(say_first([message for _, message in found.problems]))
    return found


def report_once(source: FileSource, label_space: LabelSpace, what: str) -> DatasetReport:
    """Return the report of a split of the user's files. It is remembered until a file, its place or the rules change.

    Of the problems of a remembered report only the first has a message, which is made anew. So no message names a place that the
    files have left, and none outlives its problem.
    """
    cache = _cache_file(source, label_space)
    remembered = _recall(cache, source, label_space)
    if remembered is not None:
        return remembered
    log.info("reading all %d pairs of %s once, to find bad files before they cost time", len(source), what)
    time.sleep(TICKS_S)  # so that any later change of a file also changes its time
    found = make_report(source, label_space, what)
    # What changed while it was read, or failed for want of memory, is judged again next time.
    if found.is_lasting and _cache_file(source, label_space) == cache:
        _remember(cache, found, len(source))
    return found


def recall_report(source: Source, label_space: LabelSpace) -> DatasetReport | None:
    """Return the remembered report of a split, or None; no file is read for it."""
    if not isinstance(source, FileSource):
        return None
    return _recall(_cache_file(source, label_space), source, label_space)


def leave_out_bad(source: Source, label_space: LabelSpace, what: str) -> Source:
    """Return the pairs of a split that can be used, and log how many cannot.

    Raises:
      UserError: if no pair can be used.
    """
    if not isinstance(source, FileSource):
        return source
    found = report_once(source, label_space, what)
    if not found.problems:
        return source
    bad, first = {index for index, _ in found.problems}, found.problems[0][1]
    if len(bad) == len(source):
        raise UserError(f"{what}: none of the {len(source)} pairs can be used, the first: {first}")
    log.warning("%d of %d pairs of %s are left out (on_error=skip), the first: %s", len(bad), len(source), what, first)
    usable = take(source, [index for index in range(len(source)) if index not in bad])
    if isinstance(usable, FileSource) and found.is_lasting:  # it is known to be good: never read it again
        _remember(_cache_file(usable, label_space), found.without_problems(), len(usable))
    return usable


def _cache_file(source: FileSource, label_space: LabelSpace) -> Path:
    """Return the path of the file that keeps the report on these files in their present place and state."""
    state = (describe_rules(), STRIDES, label_space.values(), source.location(), source.fingerprint())
    return cache_folder() / "checked" / f"{hashlib.sha256(repr(state).encode()).hexdigest()}.json"


def _recall(cache: Path, source: FileSource, label_space: LabelSpace) -> DatasetReport | None:
    try:
        check = documents.read_json(cache, Check)
    except UserError:  # there is none yet, or it is damaged
        return None
    if check.num_pairs != len(source) or len(check.report.pixels) != label_space.num_classes:
        return None
    found = DatasetReport.from_json(check.report.model_dump())
    if found.problems:
        index = found.problems[0][0]
        try:
            load_pair(source, index, label_space)
            return None  # it was not the file: a disk that failed for a while, for example
        except UserError as error:
            found.problems[0] = (index, str(error))
    return found


def _remember(cache: Path, found: DatasetReport, num_pairs: int) -> None:
    report = found.to_json() | {"problems": [(index, "") for index, _ in found.problems]}
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(cache, json.dumps({"num_pairs": num_pairs, "report": report}))
        _forget_old(cache.parent)
    except OSError as error:
        _say_unwritable(cache.parent, str(error.strerror or error))


def _forget_old(folder: Path) -> None:
    kept = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in kept[MAX_REMEMBERED:]:
        path.unlink(missing_ok=True)


@functools.cache
def _say_unwritable(folder: Path, reason: str) -> None:
    log.info("%s cannot be written (%s): the files will be checked again next time", folder, reason)
