"""Take the layers of a published head from a weight file."""

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from pyrseg_jax.errors import UserError
from pyrseg_jax.models.weights.image_input import ImageInput

Path = tuple[str, ...]  # of an array in our variables, such as ("params", "backbone", "stem1", "conv", "kernel")
State = Mapping[str, np.ndarray]  # a file's arrays by name

COUNTER = "num_batches_tracked"  # PyTorch counts batches; we have no use for that
KINDS = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
# PyTorch's axes are (out, in, rows, columns), (out, in, positions) along a line, and (out, in) without a kernel. These are the axes
# of ours in the same order as ours.
_AXES = {4: (2, 3, 1, 0), 3: (2, 1, 0), 2: (1, 0)}
_LAST_LAYER = re.compile(r"^(project|classify)_\d+$")


class Head(NamedTuple):
    """The layers of one release's head.

    Attributes:
      source: the release, in words.
      marker: name of an array that only this head has.
      names: path of our module, joined by "/" → its names there: (convolution, normalization or None).
      biased: names of convolutions that have a bias there although a normalization follows. Ours have none.
      arrays: path of one of our arrays that belongs to no such layer, joined by "/" → its name there. The shapes may differ in axes
        of length 1.
      trained: options of the network that the weights were trained with, by the arguments of `segmenter.build_segmenter`, where a
        publisher always chose the same. No array depends on them, and with others the weights predict worse.
      repeated: prefixes of names under which arrays are saved a second time.
      absent: names of arrays that files of this head do not have, where files of other heads have its marker, too.
      input: the input of the backbone below this head; None: that of the `Importer`.
      in_place: activation of InPlaceABN outside of the backbone, "none" or "leaky_relu", if files of the release come from networks
        with InPlaceABN; see `in_place_abn.is_in_place`.
    """

    source: str
    marker: str
    names: Mapping[str, tuple[str, str | None]]
    biased: frozenset[str] = frozenset()
    arrays: Mapping[str, str] = MappingProxyType({})
    trained: Mapping[str, Any] = MappingProxyType({})
    repeated: tuple[str, ...] = ()
    absent: frozenset[str] = frozenset()
    input: ImageInput | None = None
    in_place: str | None = None


def to_ours(path: Path, array: np.ndarray) -> np.ndarray:
    """Return a published array as float32 in our axis order; raise UserError if its numbers cannot be weights."""
    array = np.asarray(array, np.float32)
    if not np.isfinite(array).all() or (path[-1] == "var" and (array < 0).any()):
        raise UserError(
            f"the weights of {'/'.join(path[1:])} are not finite or a variance is negative: the file is damaged; download it "
            "again"
        )
    axes = _AXES.get(array.ndim)
    return array.transpose(axes) if path[-1] == "kernel" and axes else array


def published_shape(path: Path, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape that an array of ours has in PyTorch's axis order: the inverse of `to_ours`."""
    axes = _AXES.get(len(shape)) if path[-1] == "kernel" else None
    return tuple(shape[axes.index(axis)] for axis in range(len(shape))) if axes else shape


def head_name(head: Head, path: Path) -> tuple[str, str | None]:
    """Return the published names of an array of our head and, for the mean of a normalization, of the bias before it."""
    if (array := "/".join(path[1:])) in head.arrays:
        return head.arrays[array], None
    module = "/".join(path[1:-1])
    names = head.names.get(_layer_of(path))
    if names is None:
        raise UserError(f"{module} has no published name: {head.source} does not have such a layer")
    convolution, norm = names
    name = norm if module.endswith("/bn") else convolution
    bias = f"{convolution}.bias" if path[-1] == "mean" and convolution in head.biased else None
    return f"{name}.{KINDS[path[-1]]}", bias


def _layer_of(path: Path) -> str:
    """Return the layer that an array belongs to: a convolution and its normalization are one layer."""
    return "/".join(path[1:-1]).removesuffix("/conv").removesuffix("/bn")


def at_four_levels(flat: Mapping[Path, Any]) -> dict[Path, Path]:
    """Return the paths in the network by the paths that they have in `Head`.

    There, the last layers of a network that predicts one class per pixel have the number 4. In the network, the number is that of
    the finest level.
    """
    is_alone = len({path[2] for path in flat if path[1] == "semantic_head" and path[2].startswith("classify_")}) == 1
    return {
        (*path[:2], _LAST_LAYER.sub(r"\1_4", path[2]), *path[3:])
        if is_alone and path[1] == "semantic_head"
        else path: path
        for path in flat
    }


def has_layers(flat: Mapping[Path, Any], head: Head) -> bool:
    """Return whether the network has all of a head's layers, and predicts one class per pixel as the head does."""
    layers, arrays = {_layer_of(path) for path in flat}, {"/".join(path[1:]) for path in flat}
    num_classifiers = sum(layer.startswith("semantic_head/classify_") for layer in layers)
    return set(head.names) <= layers and set(head.arrays) <= arrays and num_classifiers <= 1


def has_shapes(flat: Mapping[Path, Any], head: Head, state: State) -> bool:
    """Return whether all kernels of a head have the shapes of the network's. Those of classifiers depend on the classes."""
    for path, leaf in flat.items():
        layer = _layer_of(path)
        if layer in head.names and path[-1] == "kernel" and "classify" not in layer:
            array = state.get(head_name(head, path)[0])
            if array is None or to_ours(path, array).shape != leaf.shape:
                return False
    return True


def take_head(head: Head, state: State, flat: Mapping[Path, Any]) -> tuple[dict[Path, np.ndarray], tuple[str, ...]]:
    """Take those arrays of a head that fit, if the network has all of its layers; also return, in words, what was left."""
    if not has_layers(flat, head):
        return {}, (f"the head ({head.source}), which belongs to another context module or representation",)
    taken, used, left = {}, set(), []
    for path in (path for path in flat if _layer_of(path) in head.names or "/".join(path[1:]) in head.arrays):
        name, bias_name = head_name(head, path)
        if name not in state:
            continue
        used |= {name, bias_name}
        array, shape = to_ours(path, state[name]), flat[path].shape
        is_free = name in head.arrays.values() or (path[-1] == "kernel" and array.ndim < len(shape))
        if is_free and np.squeeze(array).shape == tuple(n for n in shape if n != 1):
            array = array.reshape(shape)
        if array.shape != shape:
            left.append(f"{name} for {array.shape[-1]} classes" if "classify" in path[-2] else f"{name} {array.shape}")
        elif bias_name is not None and bias_name in state:
            # A constant that is added before a normalization has the same effect as a smaller mean in it.
            taken[path] = array - to_ours(path, state[bias_name])
        else:
            taken[path] = array
    return taken, (
        *left,
        *modules_of(name for name in state if name not in used and not name.startswith(head.repeated)),
    )


def modules_of(names: Iterable[str]) -> tuple[str, ...]:
    """List the layers that arrays belong to, each only once."""
    return tuple(dict.fromkeys(name.rpartition(".")[0] for name in names))
