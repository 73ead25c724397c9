"""Find bad files before they cost time: read the user's files once, and again only after they change."""

import hashlib
import json
import logging
from pathlib import Path

from pyrseg_jax.data.holdout import take
from pyrseg_jax.data.label_space import LabelSpace
from pyrseg_jax.data.records import Problems
from pyrseg_jax.data.report import make_report
from pyrseg_jax.data.source import FileSource, Source
from pyrseg_jax.errors import UserError
from pyrseg_jax.storage import documents
from pyrseg_jax.storage.caches import cache_folder

log = logging.getLogger(__name__)


def check_once(source: Source, label_space: LabelSpace, what: str) -> None:
    """Read all files of a split and raise if one of them cannot be used; files that passed before are not read again.

    A source that is not a `FileSource` was prepared, and checked then. It is trusted.

    Args:
      source: the split.
      label_space: the classes of its label files.
      what: name of the split, for messages.

    Raises:
      UserError: with the first problem, and how many more there are.
    """
    problems = find_problems(source, label_space, what)
    if problems:
        others = (
            f" (and {len(problems) - 1} more problems: --mode=validate lists them all)" if len(problems) > 1 else ""
        )
        raise UserError(problems[0][1] + others)


def find_problems(source: Source, label_space: LabelSpace, what: str) -> list[tuple[int, str]]:
    """List (index, message) of the pairs of a split that cannot be used. The list is cached until a file changes."""
    if not isinstance(source, FileSource):
        return []
    cache = _cache_file(source, label_space)
    try:
        return documents.read_json(cache, Problems).root
    except UserError:  # there is no cache yet, or it was cut off while it was written
        pass
    log.info("reading all %d pairs of %s once, to find bad files before they cost time", len(source), what)
    problems = make_report(source, label_space, what).problems
    _write_cache(cache, problems)
    return problems


def leave_out_bad(source: Source, label_space: LabelSpace, what: str) -> Source:
    """Return the pairs of a split that can be used, and log how many cannot.

    Raises:
      UserError: if no pair can be used.
    """
    problems = find_problems(source, label_space, what)
    if not problems:
        return source
    bad = {index for index, _ in problems}
    if len(bad) == len(source):
        raise UserError(f"{what}: none of the {len(source)} pairs can be used, the first: {problems[0][1]}")
    log.warning(
        "%d of %d pairs of %s are left out (on_error=skip), the first: %s",
        len(bad), len(source), what, problems[0][1],
    )  # fmt: skip
    usable = take(source, [index for index in range(len(source)) if index not in bad])
    if isinstance(usable, FileSource):  # it is known to be good: never read it again
        _write_cache(_cache_file(usable, label_space), [])
    return usable


def _cache_file(source: FileSource, label_space: LabelSpace) -> Path:
    """Return the path of the file that keeps the problems found in these files in their present state."""
    state = "\n".join([*source.fingerprint(), repr(label_space.values())])
    return cache_folder() / "checked" / f"{hashlib.sha256(state.encode()).hexdigest()}.json"


def _write_cache(cache: Path, problems: list[tuple[int, str]]) -> None:
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        cache.write_text(json.dumps(problems), encoding="utf-8")
    except OSError:
        log.info("%s cannot be written: the files will be checked again next time", cache.parent)
