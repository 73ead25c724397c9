"""Name the classifier of a published head as in a network with any number of levels."""

from collections.abc import Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")

# Published heads are written down with the classifier of a pyramid's fourth level, which is the finest by default.
_WRITTEN = "_4"


def named_for(layers: Mapping[str, T], paths: Iterable[tuple[str, ...]]) -> dict[str, T]:
    """Return a head's layers with those of the classifier named as in a network with these arrays.

    A network that predicts one class per pixel has a single classifier, which is named after its finest level.

    Args:
      layers: path of a layer, joined by "/" → anything, as `Head.names`.
      paths: of the network's arrays.
    """
    levels = {path[2].rpartition("_")[2] for path in paths if path[1] == "semantic_head"}
    if len(levels) != 1:
        return dict(layers)
    ours = f"_{levels.pop()}"
    return {
        layer.removesuffix(_WRITTEN) + ours if layer.startswith("semantic_head/") else layer: names
        for layer, names in layers.items()
    }
