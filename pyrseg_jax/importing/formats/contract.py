"""What every format of a label tool provides."""

from collections.abc import Callable
from typing import NamedTuple

from pyrseg_jax.importing.annotations import Annotations, Options
from pyrseg_jax.importing.source_tree import SourceTree


class Format(NamedTuple):
    """A format of annotations.

    name: what `--format` calls it.
    meaning: what it is, in one line.
    recognize: files → the evidence that they are of this format, as a text, or None.
    read: files and options → the annotations. A UserError says in one line what is wrong, and where.
    is_general: whether nearly any folder of masks fits, so that other formats go first.
    has_file: whether a single file of annotations names the source; the others are folders of masks.
    """

    name: str
    meaning: str
    recognize: Callable[[SourceTree], str | None]
    read: Callable[[SourceTree, Options], Annotations]
    is_general: bool = False
    has_file: bool = False
