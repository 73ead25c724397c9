"""Decide which class of the source becomes which value of the written label maps."""

import difflib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt16

from pyrseg_jax.data.label_space import MAX_CLASSES
from pyrseg_jax.errors import UserError
from pyrseg_jax.importing.annotations import BACKGROUND, UNLABELED, Annotations, Options
from pyrseg_jax.importing.class_list import check_names
from pyrseg_jax.storage.names import comparable

# Names that tools and data sets give to "no class here", without case and signs.
VOID_NAMES = ("void", "unlabeled", "unlabelled", "ignore", "ignored", "dont care", "dontcare", "out of roi")
BACKGROUND_NAMES = ("background", "bg")


class Legend(NamedTuple):
    """The classes of the written data set.

    names: the classes; class i has the value i + 1 in label files, and 0 is void.
    table: value of a class map of the source → value in label files; its last item is for `IGNORED`.
    void_from: texts that say what becomes void.
    left_out: value of a class map → name of the class, for classes that the user's list leaves out.
    """

    names: tuple[str, ...]
    table: UInt16[np.ndarray, " values"]
    void_from: tuple[str, ...]
    left_out: Mapping[int, str]


def make_legend(annotations: Annotations, options: Options) -> Legend:
    """Number the classes that are kept.

    Classes named like `VOID_NAMES` become void. If unlabeled pixels shall become background, they join the class of such a name,
    or form a first class `background`.

    Raises:
      UserError: if there is no class, one has an unusable name, or the user's list names one that the source does not have.
    """
    source = annotations.classes
    check_names(source, [f"class {i} of the source" for i in range(1, len(source) + 1)])
    is_background = (options.unlabeled or annotations.unlabeled) == BACKGROUND
    own = next((name for name in source if _plain(name) in BACKGROUND_NAMES), None)
    available = [name for name in source if not is_void_name(name)]
    if is_background and own is None:
        available, own = [BACKGROUND, *available], BACKGROUND
    chosen = _choose(available, annotations, options)
    if not chosen:
        raise UserError("no class is left: every class of the source means void or is not in --classes")
    if len(chosen) > MAX_CLASSES:
        raise UserError(
            f"the source has {len(chosen):,} classes: at most {MAX_CLASSES:,} can be learned; name them with --classes=FILE"
        )
    values = {comparable(name): value for value, name in enumerate(chosen, 1)}
    table = np.zeros(len(source) + 2, np.uint16)
    for value, name in enumerate(source, 1):
        table[value] = values.get(comparable(name), 0)
    void_from = [f"the class {name!r}" for name in source if is_void_name(name)]
    if is_background and own is not None:
        table[UNLABELED] = values.get(comparable(own), 0)
    elif annotations.void_meaning:
        void_from.insert(0, annotations.void_meaning)
    left_out = {
        value: name for value, name in enumerate(source, 1) if comparable(name) not in values and not is_void_name(name)
    }
    return Legend(tuple(chosen), table, tuple(void_from), left_out)


def is_void_name(name: str) -> bool:
    """Tell whether a class of this name means that a pixel has no class."""
    return _plain(name) in VOID_NAMES


def _plain(name: str) -> str:
    return " ".join("".join(c if c.isalnum() else " " for c in name.replace("'", "")).lower().split())


def _choose(available: Sequence[str], annotations: Annotations, options: Options) -> list[str]:
    """Return the names that are kept, in order: those of the user's list, or all."""
    if options.classes is None or annotations.has_own_order:
        return list(available)
    known = {comparable(name): name for name in available}
    wanted = [name for name in options.classes.names if not is_void_name(name)]
    for name in wanted:
        if comparable(name) not in known:
            near = difflib.get_close_matches(name, available, 1, 0.6)
            hint = f"did you mean {near[0]!r}?" if near else f"its classes are {', '.join(list(available)[:12])}"
            raise UserError(f"{options.classes.path} names the class {name!r}, which the source does not have: {hint}")
    return [known[comparable(name)] for name in wanted]
