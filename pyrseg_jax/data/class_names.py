"""Read `classes.txt`: the names of classes reach terminals, figures and web pages, so they must be plain text."""

from pathlib import Path

from pyrseg_jax.data.label_space import MAX_CLASSES, MAX_NAME, find_problem
from pyrseg_jax.data.listing import entries_of
from pyrseg_jax.data.near_names import find_similar, say_similar
from pyrseg_jax.data.text_lines import decode, split_lines
from pyrseg_jax.errors import UserError
from pyrseg_jax.storage.names import comparable
from pyrseg_jax.storage.regular_file import read_regular_file

MAX_FILE_BYTES = 2**20
_WANTED = "write one class name per line, in the order of the label values 1 … C"


def read_class_names(root: Path) -> tuple[str, ...]:
    """Read `classes.txt`. Lines may end as on any system.

    Raises:
      UserError: naming the file and line, if it is missing, empty, too long, not text, or holds a name twice or one that is not
        plain text.
    """
    path = root / "classes.txt"
    lines = [line.strip(" \t\xa0") for line in split_lines(decode(_read(path), path), path)]
    if lines == [""]:
        raise UserError(f"{path} is empty: {_WANTED}")
    if len(lines) > MAX_CLASSES:
        raise UserError(f"{path} names {len(lines)} classes: expected at most {MAX_CLASSES:,}")
    seen: dict[str, int] = {}
    for number, name in enumerate(lines, 1):
        where = f"{path}: line {number}"
        if not name.strip():  # of spaces of any script
            raise UserError(f"{where} is empty: line i names the class of label value i, so no line may be left out")
        if problem := find_problem(name):
            raise UserError(f"{where} {problem}: expected a class name in plain text of at most {MAX_NAME} characters")
        if comparable(name) in seen:
            raise UserError(
                f"{where} repeats the class {name!r} of line {seen[comparable(name)]}: class names must differ"
            )
        seen[comparable(name)] = number
    return tuple(lines)


def _read(path: Path) -> bytes:
    try:
        return read_regular_file(path, MAX_FILE_BYTES)
    except FileNotFoundError as error:
        if path.is_symlink():
            raise UserError(f"{path} is a link to a file that does not exist: repair it") from error
        similar = find_similar("classes", entries_of(path.parent)) if path.parent.is_dir() else []
        raise UserError(f"{path} is missing{say_similar(similar)}: {_WANTED}") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}): check its permissions") from error
