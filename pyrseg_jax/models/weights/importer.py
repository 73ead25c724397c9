"""Take the variables of a network from a published weight file, by the file's layout.

A layout is an `Importer`: it says how a publisher's files name the arrays of one family of backbones, and of the heads trained on
them. The spec of a backbone lists the importers that fit it. Convolution kernels are transposed from PyTorch's (out, in, rows,
columns) to our (rows, columns, in, out); all other arrays keep their numbers.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict

from pyrseg_jax.errors import UserError
from pyrseg_jax.models.weights.finest_level import named_for

Path = tuple[str, ...]  # of an array in our variables, such as ("params", "backbone", "stem1", "conv", "kernel")
State = Mapping[str, np.ndarray]  # a file's arrays by name
# The published names of an array of ours, and of a bias that is subtracted from it, if there is one.
Names = Mapping[Path, tuple[str, str | None]]

KINDS = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
PREFIXES = ("module.", "model.")  # training programs put these before every name
# Files of whole segmenters may put one of these before the backbone's names.
BACKBONE_PREFIXES = ("backbone.", "pretrained.")
COUNTER = "num_batches_tracked"  # PyTorch counts batches; we have no use for that
_LAST_LAYER = re.compile(r"^(project|classify)_\d+$")
NUM_NAMED = 5  # names that an error message lists before "and 7 more"


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
    """

    source: str
    marker: str
    names: Mapping[str, tuple[str, str | None]]
    biased: frozenset[str] = frozenset()
    arrays: Mapping[str, str] = MappingProxyType({})
    trained: Mapping[str, Any] = MappingProxyType({})
    repeated: tuple[str, ...] = ()
    absent: frozenset[str] = frozenset()


class Importer(NamedTuple):
    """The layout of published weight files for one family of backbones.

    Attributes:
      family: the family, in words.
      marker: name of a convolution kernel that every file of this layout has, and whose shape tells the family's members apart.
      member: shape of the marker (out, in, rows, columns) → name of the member.
      name_of: path of an array in the backbone's variables (collection, modules …, kind) → its published name.
      ignored: prefixes of the names of parts that our networks do not have, such as an ImageNet classifier.
      heads: heads that were published on such backbones.
    """

    family: str
    marker: str
    member: Callable[[tuple[int, ...]], str]
    name_of: Callable[[Path], str]
    ignored: tuple[str, ...] = ()
    heads: tuple[Head, ...] = ()


class Import(NamedTuple):
    """The variables that a file gave.

    Attributes:
      variables: variables by path, float32; those that the file did not contain are absent.
      source: the release that the names belong to, in words.
      left: arrays of the file that the network does not take, in words; empty when everything was used.
      trained: as in `Head`, if the file is a release's whole network.
    """

    variables: dict[Path, np.ndarray]
    source: str
    left: tuple[str, ...]
    trained: Mapping[str, Any] = MappingProxyType({})


def import_weights(state_dict: State, abstract: Mapping, importers: Sequence[Importer]) -> Import:
    """Take the backbone, which must fit, and those layers of a published head that fit.

    A head is taken only for networks that predict one class per pixel: the layers of a pyramid have no published counterpart.

    Args:
      state_dict: the file's arrays by name.
      abstract: shapes of the network's variables, see `initial.abstract_variables`.
      importers: the importers in the backbone's spec.

    Raises:
      UserError: if no importer knows the names, or the backbone is another one than the network's. The message lists names that are
        missing or unknown, and shapes that do not fit.
    """
    if not importers:
        raise UserError(
            "no importer reads weight files for this backbone: start from another run's folder, or choose a "
            "backbone that published weights fit"
        )
    flat = flatten_dict(abstract)
    importer = recognize(state_dict, importers)
    importer = importer._replace(heads=tuple(h._replace(names=named_for(h.names, flat)) for h in importer.heads))
    state, head_state = split(state_dict, importer)
    names = {path: (importer.name_of((path[0], *path[2:])), None) for path in flat if path[1] == "backbone"}
    _check_member(importer, state, names, flat)
    variables = convert(importer.family, state, names, flat)
    heads = [head for head in importer.heads if head.marker in head_state and head.absent.isdisjoint(head_state)]
    if not heads:
        source = importer.family if not head_state else f"{importer.family}, another head"
        return Import(variables, source, _modules(head_state))
    paths = _at_four_levels(flat)
    flat = {path: flat[ours] for path, ours in paths.items()}
    known = [head for head in heads if _has_layers(flat, head)] or heads
    head = next((head for head in known if _has_shapes(flat, head, head_state)), known[0])
    taken, left = _take_head(head, head_state, flat)
    return Import(variables | {paths[path]: array for path, array in taken.items()}, head.source, left, head.trained)


def recognize(state_dict: State, importers: Sequence[Importer]) -> Importer:
    """Return the first importer whose marker is in the file; raise UserError if there is none."""
    for importer in importers:
        state, _ = split(state_dict, importer)
        if np.ndim(state.get(importer.marker, ())) == 4:
            return importer
    families = " or ".join(dict.fromkeys(importer.family for importer in importers))
    markers = " or ".join(importer.marker for importer in importers)
    state, _ = split(state_dict, importers[0])
    raise UserError(
        f"these are not the weights of this kind of backbone ({families}): there is no {markers}, but "
        f"{some_of(state) or 'nothing'}; the documentation lists the files that fit"
    )


def split(state_dict: State, importer: Importer) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Strip prefixes and counters; return the arrays of the backbone and, by their own names, those of a head."""
    state = _strip(state_dict)
    state = {name: array for name, array in state.items() if not name.startswith(importer.ignored)}
    prefix = next((prefix for prefix in BACKBONE_PREFIXES if any(name.startswith(prefix) for name in state)), "")
    if prefix:
        is_head = {name: not name.startswith(prefix) for name in state}
    else:
        of_heads = [name for head in importer.heads for pair in head.names.values() for name in pair if name]
        of_heads += [name for head in importer.heads for name in head.arrays.values()]
        parts = tuple(f"{name.partition('.')[0]}." for name in of_heads)
        is_head = {name: name.startswith(parts) for name in state}
    backbone = {name.removeprefix(prefix): state[name] for name in state if not is_head[name]}
    backbone = {name: array for name, array in backbone.items() if not name.startswith(importer.ignored)}
    return backbone, {name: state[name] for name in state if is_head[name]}


def convert(family: str, state: State, names: Names, abstract: Mapping[Path, Any]) -> dict[Path, np.ndarray]:
    """Bring each array into our layout; every array must be there, of the right shape, and used.

    Args:
      family: family of the backbone, for messages.
      state: the file's arrays by name.
      names: path of each array of ours → its names there.
      abstract: shapes of ours by path.

    Raises:
      UserError: listing what is missing, unknown, or of another shape.
    """
    wanted = {name for name, _ in names.values()}
    missing, unknown = sorted(wanted - set(state)), sorted(set(state) - wanted)
    variables = {path: to_ours(path, state[name]) for path, (name, _) in names.items() if name in state}
    wrong = [
        f"{names[path][0]} {array.shape} instead of {tuple(abstract[path].shape)}"
        for path, array in variables.items()
        if array.shape != abstract[path].shape
    ]
    if missing or unknown or wrong:
        found = [
            f"{len(items)} {what}: {some_of(items)}"
            for items, what in ((missing, "names are missing"), (unknown, "are unknown"), (wrong, "have another shape"))
            if items
        ]
        raise UserError(
            f"the weights do not fit this {family}: {'; '.join(found)}; choose another file, or the backbone that "
            "this file is for"
        )
    return variables


def to_ours(path: Path, array: np.ndarray) -> np.ndarray:
    """Return a published array as float32 in our axis order; raise UserError if its numbers cannot be weights."""
    array = np.asarray(array, np.float32)
    if not np.isfinite(array).all() or (path[-1] == "var" and (array < 0).any()):
        raise UserError(
            f"the weights of {'/'.join(path[1:])} are not finite or a variance is negative: the file is damaged; download it "
            "again"
        )
    # PyTorch's axes are (out, in, rows, columns), (out, in, positions) along a line, and (out, in) without a kernel.
    axes = {4: (2, 3, 1, 0), 3: (2, 1, 0), 2: (1, 0)}.get(array.ndim)
    return array.transpose(axes) if path[-1] == "kernel" and axes else array


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


def some_of(names: Iterable[str]) -> str:
    """List the first names, and say how many more there are."""
    names = list(names)
    return ", ".join(names[:NUM_NAMED]) + (f" and {len(names) - NUM_NAMED} more" if len(names) > NUM_NAMED else "")


def _strip(state_dict: State) -> dict[str, np.ndarray]:
    """Remove counters, and the prefixes of training programs, in any order."""
    state = {name: array for name, array in state_dict.items() if not name.endswith(COUNTER)}
    for _ in PREFIXES:
        for prefix in PREFIXES:
            state = {name.removeprefix(prefix): array for name, array in state.items()}
    return state


def _check_member(importer: Importer, state: State, names: Names, flat: Mapping[Path, Any]) -> None:
    """Raise UserError if the file is for another member of the family than the network's backbone."""
    path = next(path for path, (name, _) in names.items() if name == importer.marker)
    rows, columns, inputs, outputs = flat[path].shape
    found, ours = importer.member(np.shape(state[importer.marker])), importer.member((outputs, inputs, rows, columns))
    if found != ours:
        raise UserError(
            f"the weights are of {found}, and the network's backbone is {ours}: choose the backbone that the weights are for"
        )


def _layer_of(path: Path) -> str:
    """Return the layer that an array belongs to: a convolution and its normalization are one layer."""
    return "/".join(path[1:-1]).removesuffix("/conv").removesuffix("/bn")


def _at_four_levels(flat: Mapping[Path, Any]) -> dict[Path, Path]:
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


def _has_layers(flat: Mapping[Path, Any], head: Head) -> bool:
    """Return whether the network has all of a head's layers, and predicts one class per pixel as the head does."""
    layers, arrays = {_layer_of(path) for path in flat}, {"/".join(path[1:]) for path in flat}
    num_classifiers = sum(layer.startswith("semantic_head/classify_") for layer in layers)
    return set(head.names) <= layers and set(head.arrays) <= arrays and num_classifiers <= 1


def _has_shapes(flat: Mapping[Path, Any], head: Head, state: State) -> bool:
    """Return whether all kernels of a head have the shapes of the network's. Those of classifiers depend on the classes."""
    for path, leaf in flat.items():
        layer = _layer_of(path)
        if layer in head.names and path[-1] == "kernel" and "classify" not in layer:
            array = state.get(head_name(head, path)[0])
            if array is None or to_ours(path, array).shape != leaf.shape:
                return False
    return True


def _take_head(head: Head, state: State, flat: Mapping[Path, Any]) -> tuple[dict[Path, np.ndarray], tuple[str, ...]]:
    """Take those arrays of a head that fit, if the network has all of its layers; also return, in words, what was left."""
    if not _has_layers(flat, head):
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
    return taken, (*left, *_modules(name for name in state if name not in used and not name.startswith(head.repeated)))


def _modules(names: Iterable[str]) -> tuple[str, ...]:
    """List the layers that arrays belong to, each only once."""
    return tuple(dict.fromkeys(name.rpartition(".")[0] for name in names))
