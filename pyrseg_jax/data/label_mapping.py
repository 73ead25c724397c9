"""Map the values of the user's label files to classes, where they do not follow ADE20K's numbering."""

import dataclasses

from pyrseg_jax.data.label_space import MAX_VALUE, LabelSpace
from pyrseg_jax.errors import UserError

VOID_WORD = "void"


@dataclasses.dataclass(frozen=True)
class LabelMapping:
    """The meaning of the values in label files. The defaults are ADE20K's numbering.

    Attributes:
      first_value: value of the first class in the list; the other classes count up from it.
      void_value: value of pixels without a class.
      remap: further values, as `VALUE:CLASS,…`, where CLASS is the value of a class or the word void: "7:1,9:void".
    """

    first_value: int = 1
    void_value: int = 0
    remap: str = ""

    def describe(self) -> str:
        """Name the arguments that differ from ADE20K's numbering, for messages."""
        default = LabelMapping()
        given = ((name, value) for name, value in dataclasses.asdict(self).items() if value != getattr(default, name))
        return ", ".join(f"{name}={value!r}" for name, value in given)


def make_label_space(names: tuple[str, ...], mapping: LabelMapping = LabelMapping()) -> LabelSpace:  # noqa: B008 (frozen)
    """Number the classes of a list.

    Chosen: nothing is guessed. A value without a meaning stays an error.

    Raises:
      UserError: naming the argument, for values that do not fit together.
    """
    first_value, void_value = mapping.first_value, mapping.void_value
    last_value = first_value + len(names) - 1
    if last_value > MAX_VALUE:
        raise UserError(
            f"first_value={first_value}: the last of {len(names)} classes would have the value {last_value}, and "
            f"label maps hold values up to {MAX_VALUE}; use a smaller value"
        )
    if first_value <= void_value <= last_value:
        name = names[void_value - first_value]
        raise UserError(
            f"void_value={void_value} is the value of the class {name!r}: the classes of classes.txt have the "
            f"values {first_value} … {last_value} (first_value={first_value}); for labels that count from 0, with "
            "255 for void, set first_value=0 and void_value=255"
        )
    plain = LabelSpace(names, tuple(range(first_value, last_value + 1)), void_value)
    return LabelSpace(names, plain.file_ids, void_value, also=_read_remap(mapping.remap, plain))


def _read_remap(text: str, space: LabelSpace) -> tuple[tuple[int, int], ...]:
    """Parse `VALUE:CLASS,…` to (value in label files, train id or void), in ascending order."""
    meaning = {value: train_id for train_id, value in enumerate(space.file_ids)} | {space.void_file_id: space.void}
    found: dict[int, int] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        value, colon, target = (part.strip() for part in entry.partition(":"))
        is_number = value.isdecimal() and int(value) <= MAX_VALUE
        if not colon or not is_number or not (target == VOID_WORD or target.isdecimal()):
            raise UserError(
                f"remap={text!r}: {entry!r} is not VALUE:CLASS with a value from 0 to {MAX_VALUE} and the value of a class, "
                f'or the word {VOID_WORD}; write it like "7:1,9:{VOID_WORD}"'
            )
        if target != VOID_WORD and int(target) not in meaning:
            raise UserError(f"remap={text!r}: {target} is not a class: expected {space.describe_file_ids()}")
        if int(value) in found:
            raise UserError(f"remap={text!r}: {value} is given twice: keep one of them")
        if int(value) == space.void_file_id:
            raise UserError(
                f"remap={text!r}: {value} is the value of void; if it is a class, set void_value=N to another value"
            )
        found[int(value)] = space.void if target == VOID_WORD else meaning[int(target)]
    return tuple(sorted(found.items()))
