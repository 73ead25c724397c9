"""Read the tables of classes in `classes/`: value in label files, name, stuff or thing, color."""

import csv
from pathlib import Path

from pyrseg_jax.data.hierarchy import read_own_hierarchy
from pyrseg_jax.data.label_space import LabelSpace


def read_class_table(name: str, *, has_hierarchy: bool = False, void_value: int = 0) -> LabelSpace:
    """Read `classes/NAME.csv`. The order of its lines gives the train ids.

    Args:
      name: name of the table.
      has_hierarchy: whether `hierarchies/NAME.txt` gives the groups of the classes.
      void_value: value in label files of pixels without a class.
    """
    rows = _rows(name)
    names = tuple(row["name"] for row in rows)
    return LabelSpace(
        names=names,
        file_ids=tuple(int(row["value"]) for row in rows),
        void_file_id=void_value,
        colors=tuple((int(row["red"]), int(row["green"]), int(row["blue"])) for row in rows),
        is_stuff=tuple(row["is_stuff"] == "1" for row in rows),
        hierarchy=read_own_hierarchy(name, names) if has_hierarchy else None,
    )


def read_column(name: str, column: str) -> tuple[int, ...]:
    """Read a further column of whole numbers from `classes/NAME.csv`, in the order of the train ids."""
    return tuple(int(row[column]) for row in _rows(name))


def _rows(name: str) -> list[dict[str, str]]:
    with (Path(__file__).parent / "classes" / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
