"""Read JSON files through a schema: whatever is in the file, the answer is the right object or one clear line.

A schema is a class that pydantic can validate: a model or a dataclass.
"""

import functools
import json
import os
from pathlib import Path
from typing import Any, TypeVar

from etils import epath
from pydantic import BaseModel, ConfigDict, RootModel, TypeAdapter, ValidationError

from pyrseg_jax.errors import UserError, first_line
from pyrseg_jax.storage.paths import is_remote
from pyrseg_jax.storage.regular_file import read_regular_file

T = TypeVar("T")

ADVICE = "restore the file"
MAX_PLACE = 200  # characters of the names of nested keys; ours have at most 40
MAX_SHOWN = 60  # characters of a value that an error message repeats
MAX_BYTES = 64 * 2**20  # of a document; the largest that the package writes, reports of data sets, have some megabytes
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # some editors put it in front of UTF-8

# What JSON calls the types that pydantic's errors speak of.
_EXPECTED = {
    "int_type": "int",
    "int_from_float": "int",
    "float_type": "float",
    "string_type": "str",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "an object with keys and values",
    "model_type": "an object with keys and values",
    "dataclass_type": "an object with keys and values",
    "finite_number": "a finite number",
}

UNKNOWN_KEY = ("unexpected_keyword_argument", "extra_forbidden")
MISSING_KEY = ("missing", "missing_argument")


class Document(BaseModel):
    """Base of schemas: immutable, and with no keys but its own. A subclass may relax this by its own `model_config`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class _AnyObject(RootModel):
    root: dict[str, Any]


def parse_object(content: bytes | str, name: os.PathLike[str] | str, advice: str = ADVICE) -> dict[str, Any]:
    """Read JSON text that must hold an object of any keys, as `parse_json` does."""
    return parse_json(content, _AnyObject, name, advice).root


def read_json(path: Path | epath.Path, schema: type[T], advice: str = ADVICE) -> T:
    """Read a JSON file.

    Args:
      path: path of the file, on a disk or in remote storage.
      schema: the expected type of the content.
      advice: the end of the error message: how the user can fix a damaged file.

    Returns:
      An object of the schema's type.

    Raises:
      UserError: naming the file, what is wrong with it, and what to do.
    """
    return parse_json(read_document(path, advice), schema, path, advice)


def read_document(path: Path | epath.Path, advice: str = ADVICE) -> bytes:
    """Return the bytes of a JSON file, for `parse_json`; arguments and errors as `read_json`."""
    try:
        return path.read_bytes() if is_remote(path) else read_regular_file(Path(path), MAX_BYTES)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}): {advice}") from error


def parse_json(content: bytes | str, schema: type[T], name: os.PathLike[str] | str, advice: str = ADVICE) -> T:
    """Read JSON text as `read_json` reads a file; `name` says in messages where the text is from."""
    if isinstance(content, bytes):
        content = content.removeprefix(_BYTE_ORDER_MARK)
    try:
        # Strict in the sense of JSON: a list may become a tuple, but "1" and true are not the number 1.
        found = _adapter(schema).validate_json(content, strict=True)
        json.loads(content, object_pairs_hook=_refuse_repeated)  # pydantic takes the last of equal keys, without a word
    except ValidationError as error:
        raise UserError(f"{os.fspath(name)}: {describe_problem(error)}; {advice}") from error
    except (ValueError, RecursionError) as error:  # a repeated key, or an integer of more digits than Python reads
        raise UserError(f"{os.fspath(name)}: {first_line(error)}; {advice}") from error
    return found


def _refuse_repeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in found if names.count(name) > 1)
        raise ValueError(f"the key {shorten(repeated)} occurs twice in one object")
    return found


@functools.cache
def _adapter(schema: Any) -> TypeAdapter:
    return TypeAdapter(schema)  # building one takes milliseconds, using it microseconds


def describe_problem(error: ValidationError) -> str:
    """Describe the first problem that pydantic found in one line: key, value, and the expected value."""
    problem = error.errors(include_url=False)[0]
    return describe(place_of(problem["loc"]), problem)


def place_of(loc: tuple[int | str, ...]) -> str:
    """Write a place inside a document as `classes.names[3]`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).lstrip(".")
    # Keys of a damaged file may hold line breaks, and may be as long as the file.
    return text if text.isprintable() and len(text) <= MAX_PLACE else shorten(text)


def describe(place: str, problem: Any) -> str:
    """Describe one of pydantic's problems.

    Args:
      place: position of the value inside the document, "" for the whole document.
      problem: an item of `ValidationError.errors()`.
    """
    kind, context = problem["type"], problem.get("ctx", {})
    if kind == "json_invalid":
        return f"this is not JSON ({context['error']})"
    if kind in UNKNOWN_KEY:
        return f"the key {place} is not known"
    if kind in MISSING_KEY:
        return f"the key {place} is missing"
    return f"{place or 'the document'}={shorten(problem['input'])}: {expectation(problem)}"


def expectation(problem: Any) -> str:
    """Describe the expected value for a problem, and the type that was found if the type is wrong."""
    kind, context, value = problem["type"], problem.get("ctx", {}), problem["input"]
    if kind == "greater_than_equal":
        return f"expected at least {context['ge']:g}"
    if kind == "less_than_equal":
        return f"expected at most {context['le']:g}"
    if kind == "finite_number":
        return "expected a finite number"
    if kind in _EXPECTED:
        return f"expected {_EXPECTED[kind]}, found {_kind_of(value)}"
    # Pydantic puts "Value error" before the messages of our own validators.
    return problem["msg"].removeprefix("Value error, ").replace("Input should be ", "expected ")


def _kind_of(value: Any) -> str:
    """Name the type of a value, and truth values as people write them."""
    return str(value).lower() if isinstance(value, bool) else "null" if value is None else type(value).__name__


def shorten(value: Any) -> str:
    """Write a value in one line of at most `MAX_SHOWN` characters."""
    try:
        text = repr(value)
    except RecursionError:
        text = type(value).__name__
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…"
