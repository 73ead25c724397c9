"""Read a hierarchy of classes: an indented text file, which gives the groups that hold each class.

    # a comment
    things
      vehicles
        car
        bus
      person
    sky

A line with deeper lines below it is a group, and every other line is a class of the data set. Each level is indented by two more
spaces. Each class occurs once, in a group or outside of all. Groups are told apart by their place, so different groups may hold
groups of the same name, and a group may have the name of a class. Blank lines and lines that begin with `#` are passed over.
"""

from collections.abc import Sequence
from pathlib import Path

from pyrseg_jax.data.label_space import MAX_NAME, MAX_NESTING, find_problem
from pyrseg_jax.data.text_lines import decode, split_lines
from pyrseg_jax.errors import UserError
from pyrseg_jax.storage.documents import shorten
from pyrseg_jax.storage.names import comparable
from pyrseg_jax.storage.regular_file import read_regular_file

FILE_NAME = "hierarchy.txt"
INDENT = 2  # spaces per level
MAX_FILE_BYTES = 2**20
NUM_NAMED = 4  # classes to name in a message
Groups = tuple[str, ...]


def read_hierarchy(root: Path, names: Sequence[str]) -> tuple[Groups, ...] | None:
    """Read `hierarchy.txt` of a folder; return None if the folder has none.

    Args:
      root: the folder.
      names: names of the C classes.

    Returns:
      For each class, the names of the groups that hold it, outermost first.

    Raises:
      UserError: naming the file and line, for a file that cannot be read or is not a hierarchy of these classes.
    """
    path = root / FILE_NAME
    if not path.exists() and not path.is_symlink():
        return None
    try:
        data = read_regular_file(path, MAX_FILE_BYTES)
    except FileNotFoundError as error:
        raise UserError(f"{path} is a link to a file that does not exist: repair it") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}): check its permissions") from error
    return parse_hierarchy(decode(data, path), names, path)


def describe_hierarchy(hierarchy: Sequence[Groups] | None) -> str:
    """Describe a hierarchy in a few words, for reports."""
    if hierarchy is None:
        return "none: networks that read one take all classes as one group"
    groups = {path[:end] for path in hierarchy for end in range(1, len(path) + 1)}
    return f"{len(groups)} groups, at most {max(map(len, hierarchy))} within each other"


def read_own_hierarchy(name: str, names: Sequence[str]) -> tuple[Groups, ...]:
    """Read `hierarchies/NAME.txt`, which comes with the package; see `read_hierarchy`."""
    path = Path(__file__).parent / "hierarchies" / f"{name}.txt"
    return parse_hierarchy(path.read_text("utf-8"), names, path)


def parse_hierarchy(text: str, names: Sequence[str], path: Path) -> tuple[Groups, ...]:
    """Parse the text of a hierarchy; `path` is for messages. See `read_hierarchy`."""
    classes = {comparable(name): train_id for train_id, name in enumerate(names)}
    entries = _read_entries(text, path)
    found: dict[int, tuple[Groups, int]] = {}  # train id → its groups and its line
    lines_of_groups: dict[Groups, int] = {}
    above: list[str] = []
    for i, (number, depth, name) in enumerate(entries):
        where, key = f"{path}: line {number}", comparable(name)
        above = above[:depth]
        if i + 1 < len(entries) and entries[i + 1][1] > depth:
            above.append(key)
            if tuple(above) in lines_of_groups:
                raise UserError(
                    f"{where} repeats the group {shorten(name)} of line {lines_of_groups[tuple(above)]}: write a group once, with "
                    "everything that it holds below it"
                )
            lines_of_groups[tuple(above)] = number
        elif key not in classes:
            raise UserError(
                f"{where}: {shorten(name)} is not a class and holds none: expected a class of the data set, or a group with its "
                f"classes below it, indented by {INDENT} more spaces"
            )
        elif classes[key] in found:
            raise UserError(
                f"{where} repeats the class {shorten(name)} of line {found[classes[key]][1]}: each class belongs to one place"
            )
        else:
            found[classes[key]] = tuple(above), number
    _check_complete(found, names, lines_of_groups, path)
    return tuple(found[train_id][0] for train_id in range(len(names)))


def _read_entries(text: str, path: Path) -> list[tuple[int, int, str]]:
    """Return line number, depth and name of each line that holds a name."""
    entries: list[tuple[int, int, str]] = []
    for number, line in enumerate(split_lines(text, path), 1):
        name = line.strip(" \t\xa0")
        if not name or line.startswith("#"):
            continue
        where = f"{path}: line {number}"
        if problem := None if name.strip() else "is empty but for spaces of another script":
            raise UserError(f"{where} {problem}: expected the name of a class or group")
        if problem := find_problem(name):
            raise UserError(f"{where} {problem}: expected a name in plain text of at most {MAX_NAME} characters")
        indentation = line[: line.index(name)]
        if indentation.strip(" "):
            raise UserError(f"{where} is indented by a tab or another sign: indent by {INDENT} spaces per level")
        spaces, deepest = len(indentation), entries[-1][1] + 1 if entries else 0
        if spaces % INDENT or spaces > INDENT * deepest:
            expected = "0" if not deepest else f"a multiple of {INDENT} up to {INDENT * deepest}"
            raise UserError(f"{where} is indented by {spaces} spaces: expected {expected}, {INDENT} per level")
        if spaces > INDENT * MAX_NESTING:
            raise UserError(
                f"{where} lies in more than {MAX_NESTING} groups: expected at most that many levels of groups"
            )
        entries.append((number, spaces // INDENT, name))
    return entries


def _check_complete(found: dict, names: Sequence[str], lines_of_groups: dict[Groups, int], path: Path) -> None:
    missing = [name for train_id, name in enumerate(names) if train_id not in found]
    if not missing:
        return
    listed = ", ".join(map(shorten, missing[:NUM_NAMED]))
    more = f" and {len(missing) - NUM_NAMED} more" if len(missing) > NUM_NAMED else ""
    line = next((line for groups, line in lines_of_groups.items() if groups[-1] == comparable(missing[0])), None)
    group = f" (line {line} is a group of that name, because deeper lines follow it)" if line else ""
    raise UserError(f"{path} has no line for {listed}{more}{group}: expected each class of the data set once")
