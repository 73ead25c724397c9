"""Complete the names of arguments in errors to configuration keys.

The packages below this one take plain arguments, and write them as `root=` in their errors. The user sets the key
`config.data.root`, and reads that name.
"""

import contextlib
import functools
import re
from collections.abc import Iterator
from typing import Literal

from pyrseg_jax.errors import UserError
from pyrseg_jax.run import keys
from pyrseg_jax.run.schema import Config

Group = Literal["data", "model", "training", "optimizer", "loss", "augment", "evaluation", "parallel"]


def complete_names(message: str, *groups: Group) -> str:
    """Replace each `argument=` in a message by `config.GROUP.argument=`; complete names stay as they are.

    Args:
      message: the text of an error or a hint.
      groups: the configuration groups whose keys the message may name, for example `data`.
    """
    return _pattern(groups).sub(lambda found: _full_names(groups)[found[0]], message)


@contextlib.contextmanager
def naming(*groups: Group) -> Iterator[None]:
    """Complete the names in any UserError that is raised inside; also usable as a decorator. `groups`: see `complete_names`."""
    try:
        yield
    except UserError as error:
        completed = complete_names(str(error), *groups)
        if completed == str(error):
            raise
        raise UserError(completed) from error


@functools.cache
def _full_names(groups: tuple[Group, ...]) -> dict[str, str]:
    split = (name.rpartition(".") for name in keys.keys_of(Config))
    return {argument: f"config.{group}.{argument}" for group, _, argument in split if group in groups}


@functools.cache
def _pattern(groups: tuple[Group, ...]) -> re.Pattern[str]:
    """Match an argument at the start of a word, where a part of a path or of a complete key does not match."""
    return re.compile(rf"(?<![^\s(])({'|'.join(_full_names(groups))})(?==| is not set)")
