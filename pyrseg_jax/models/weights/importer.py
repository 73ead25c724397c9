"""Take the variables of a network from a published weight file, by the file's layout.

A layout is an `Importer`: it says how a publisher's files name the arrays of one family of backbones, and of the heads trained on
them. The spec of a backbone lists the importers that fit it. Convolution kernels are transposed from PyTorch's (out, in, rows,
columns) to our (rows, columns, in, out); all other arrays keep their numbers.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict

from pyrseg_jax.errors import UserError
from pyrseg_jax.models.weights.head import (
    Head,
    Path,
    State,
    at_four_levels,
    has_layers,
    has_shapes,
    modules_of,
    published_shape,
    take_head,
    to_ours,
)
from pyrseg_jax.models.weights.image_input import ImageInput, rewrite_first_layer
from pyrseg_jax.models.weights.in_place_abn import effective_scales, is_in_place, restore_indices
from pyrseg_jax.models.weights.prefixes import BACKBONE_PREFIXES, find_backbone, find_copies, some_of, strip

Shapes = Mapping[str, tuple[int, ...]]  # of arrays, by their published names
# The published names of an array of ours, and of a bias that is subtracted from it, if there is one.
Names = Mapping[Path, tuple[str, str | None]]

# Classifiers that people put on a backbone, if no layout names them.
CLASSIFIERS = ("fc.", "head.", "classifier.", "last_linear.", "linear.", "projector.")
LEAKY = (
    "its layers after the backbone have a leaky ReLU with a slope of 0.01, and the network's have a ReLU: predictions differ until "
    "you train further"
)


class Importer(NamedTuple):
    """The layout of published weight files for one family of backbones.

    Attributes:
      family: the family, in words.
      marker: name of a convolution kernel that every file of this layout has, and whose shape tells the family's members apart.
      member: shapes of arrays by their published names → name of the member, of the file's arrays and of those that the network
        would have in a file.
      name_of: path of an array in the backbone's variables (collection, modules …, kind) → its published name.
      ignored: prefixes of the names of parts that our networks do not have, such as an ImageNet classifier.
      heads: heads that were published on such backbones.
      input: the input of these backbones; None: our own.
      prefixes: what files of whole networks may put before the backbone's names, besides `BACKBONE_PREFIXES`.
      rewrite: brings the backbone's arrays to the names and shapes that `name_of` and our axes expect, for example by splitting an
        array that holds the kernels of queries, keys and values; None: they are as expected.
      neck_name_of: path of an array in the network's neck (collection, "neck", modules …, kind) → the name under which files of
        whole networks have it beside the backbone, or None. Such arrays are taken from the files that have them.
      fit: (the backbone's arrays after `rewrite`, shapes of the network's by the same names) → arrays of these shapes, and in words
        what was computed anew; for arrays whose shape depends on a setting of the network.
      conversion: what `rewrite` computes anew, in words, for the log; empty if it only renames, splits or turns arrays.
    """

    family: str
    marker: str
    member: Callable[[Shapes], str]
    name_of: Callable[[Path], str]
    ignored: tuple[str, ...] = ()
    heads: tuple[Head, ...] = ()
    input: ImageInput | None = None
    prefixes: tuple[str, ...] = ()
    rewrite: Callable[[State], dict[str, np.ndarray]] | None = None
    neck_name_of: Callable[[Path], str | None] | None = None
    fit: Callable[[State, Shapes], tuple[dict[str, np.ndarray], tuple[str, ...]]] | None = None
    conversion: str = ""


class Import(NamedTuple):
    """The variables that a file gave.

    Attributes:
      variables: variables by path, float32; those that the file did not contain are absent.
      source: the release that the names belong to, in words.
      left: arrays of the file that the network does not take, in words; empty when everything was used.
      trained: as in `Head`, if the file is a release's whole network.
      converted: what was computed anew because the publisher's convention differs, in words.
      differs: in what the release's network differs from ours, in words, where no conversion can help.
    """

    variables: dict[Path, np.ndarray]
    source: str
    left: tuple[str, ...]
    trained: Mapping[str, Any] = MappingProxyType({})
    converted: tuple[str, ...] = ()
    differs: tuple[str, ...] = ()


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
    flat: dict[Path, Any] = flatten_dict(abstract)  # pyright: ignore[reportAssignmentType]  # flax cannot know the leaves
    importer = recognize(state_dict, importers)
    state, head_state = split(state_dict, importer)
    if importer.rewrite is not None:
        state = importer.rewrite(state)
    names: Names = {path: (importer.name_of((path[0], *path[2:])), None) for path in flat if path[1] == "backbone"}
    _check_member(importer, state, names, flat)
    names = {**names, **_names_of_neck(importer, state, flat)}
    fitted = (importer.conversion,) if importer.conversion else ()
    if importer.fit is not None:
        shapes = {name: published_shape(path, flat[path].shape) for path, (name, _) in names.items()}
        state, changed = importer.fit(state, shapes)
        fitted += changed
    variables = convert(importer.family, state, names, flat)
    heads = find_heads(importer, head_state)
    if not heads:
        source = importer.family if not head_state else f"{importer.family}, another head"
        variables, converted = adapt(variables, importer.input, False)
        return Import(variables, source, modules_of(head_state), converted=fitted + converted)
    paths = at_four_levels(flat)
    flat = {path: flat[ours] for path, ours in paths.items()}
    known = [head for head in heads if has_layers(flat, head)] or heads
    head = next((head for head in known if has_shapes(flat, head, restore_indices(head, head_state))), known[0])
    has_in_place = is_in_place(head, head_state, state_dict)
    taken, left = take_head(head, restore_indices(head, head_state), flat)
    variables |= {paths[path]: array for path, array in taken.items()}
    variables, converted = adapt(variables, head.input or importer.input, has_in_place)
    differs = (LEAKY,) if has_in_place and taken and head.in_place == "leaky_relu" else ()
    return Import(variables, head.source, left, head.trained, fitted + converted, differs)


def find_heads(importer: Importer, head_state: State) -> list[Head]:
    """Return the heads of an importer that a file may hold."""
    return [head for head in importer.heads if head.marker in head_state and head.absent.isdisjoint(head_state)]


def adapt(
    variables: dict[Path, np.ndarray], given: ImageInput | None, has_in_place: bool
) -> tuple[dict[Path, np.ndarray], tuple[str, ...]]:
    """Bring variables from a publisher's conventions to ours; also say in words what was changed.

    Args:
      variables: those of the file.
      given: the publisher's input; None: our own.
      has_in_place: whether the normalizations are InPlaceABN.
    """
    converted = ()
    if given is not None:
        variables = rewrite_first_layer(variables, given)
        converted += (f"the first convolution, from {given.words} to normalized RGB",)
    if has_in_place:
        variables = effective_scales(variables)
        converted += ("the scales of normalizations, to the absolute values that InPlaceABN uses",)
    return variables, converted


def recognize(state_dict: State, importers: Sequence[Importer]) -> Importer:
    """Return the first importer whose marker is in the file; raise UserError if there is none."""
    for importer in importers:
        state, _ = split(state_dict, importer)
        if np.ndim(state.get(importer.marker, ())) == 4:
            return importer
    families = " or ".join(dict.fromkeys(importer.family.partition(" (")[0] for importer in importers))
    markers = " or ".join(importer.marker for importer in importers)
    state, _ = split(state_dict, importers[0])
    raise UserError(
        f"these are not the weights of this kind of backbone ({families}): there is no {markers}, but "
        f"{some_of(state) or 'nothing'}; the documentation lists the files that fit"
    )


def split(state_dict: State, importer: Importer) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Strip prefixes and counters; return the arrays of the backbone and, by their own names, those of a head."""
    known = BACKBONE_PREFIXES + importer.prefixes
    state = find_backbone(strip(state_dict), importer.marker, known)
    state = {name: array for name, array in state.items() if not name.startswith(importer.ignored)}
    prefix = next((prefix for prefix in known if any(name.startswith(prefix) for name in state)), "")
    if prefix:
        is_head = {name: not name.startswith(prefix) for name in state}
    else:
        of_heads = [name for head in importer.heads for pair in head.names.values() for name in pair if name]
        of_heads += [name for head in importer.heads for name in head.arrays.values()]
        parts = tuple(f"{name.partition('.')[0]}." for name in of_heads)
        parts += CLASSIFIERS + find_copies(state, importer.marker)
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


def _names_of_neck(importer: Importer, state: State, flat: Mapping[Path, Any]) -> Names:
    """Return the names of those arrays of the network's neck that a file has."""
    if importer.neck_name_of is None:
        return {}
    named = {path: importer.neck_name_of(path) for path in flat if path[1] == "neck"}
    return {path: (name, None) for path, name in named.items() if name is not None and name in state}


def _check_member(importer: Importer, state: State, names: Names, flat: Mapping[Path, Any]) -> None:
    """Raise UserError if the file is for another member of the family than the network's backbone."""
    found = importer.member({name: np.shape(array) for name, array in state.items()})
    ours = importer.member({name: published_shape(path, flat[path].shape) for path, (name, _) in names.items()})
    if found != ours:
        raise UserError(
            f"the weights are of {found}, and the network's backbone is {ours}: choose the backbone "
            f"{'and the stem ' if 'stem' in ours else ''}that the weights are for"
        )
