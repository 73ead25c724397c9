"""PyTorch's HRNet weights and this package's variables: which array is which, in both directions.

Every array of ours has one published name, and every published array has a place here, or belongs to a part that this
package does not have (the ImageNet classifier), or is an error. Convolution kernels are turned from (out, in, rows, columns)
to (rows, columns, in, out); normalisations keep their numbers.
"""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from pyrseg_jax.errors import UserError
from pyrseg_jax.models.backbones.hrnet import HRNet
from pyrseg_jax.models.initial import abstract_variables
from pyrseg_jax.models.weights.heads import HEADS, KINDS, Head, Path, head_name, official_head

State = Mapping[str, np.ndarray]

PREFIXES = ("module.", "model.")  # that training programs put before every name
# Parts of published files that are no part of HRNet's features: ImageNet's classifier, the class weights of a loss.
CLASSIFIER_PARTS = ("incre_modules.", "downsamp_modules.", "final_layer.", "classifier.", "loss.", "criterion.")
COUNTER = "num_batches_tracked"  # PyTorch counts batches; nothing here needs it

# Module path inside of our HRNet → published name. `#` is 0 for the convolution of a pair and 1 for its normalisation.
BACKBONE_NAMES = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"stem(\d)/(conv|bn)", r"\2\1"),
        (r"stage1_block_(\d+)/downsample/(conv|bn)", r"layer1.\1.downsample.#"),
        (r"stage1_block_(\d+)/(conv\d|bn\d)", r"layer1.\1.\2"),
        (r"transition1_0/(conv|bn)", r"transition1.0.#"),
        (r"transition(\d)_(\d)/(conv|bn)", r"transition\1.\2.0.#"),
        (r"stage(\d)/module_(\d+)/branch_(\d)_block_(\d+)/(\w+)", r"stage\1.\2.branches.\3.\4.\5"),
        (r"stage(\d)/module_(\d+)/fuse_(\d)_(\d)/(conv|bn)", r"stage\1.\2.fuse_layers.\3.\4.#"),
        (r"stage(\d)/module_(\d+)/fuse_(\d)_(\d)_(\d)/(conv|bn)", r"stage\1.\2.fuse_layers.\3.\4.\5.#"),
    )
)


class Import(NamedTuple):
    """What a file gave.

    variables: by path, float32; what it did not give is absent.
    source: whose names they are, in words.
    left: what the file holds and the network does not take, in words; empty when everything was used.
    """

    variables: dict[Path, np.ndarray]
    source: str
    left: tuple[str, ...]


def convert_hrnet(state_dict: State) -> dict:
    """Return the variables of the HRNet whose published weights these are: `{"params", "batch_stats"}`.

    Args:
      state_dict: arrays by the names of the official release, timm, openseg or mmsegmentation. Width and depth are read
        off it. Heads and classifiers in it are passed over.

    Raises:
      UserError: listing the names that are missing or unknown and the shapes that do not fit.
    """
    state, _ = _split(state_dict)
    abstract = flatten_dict(abstract_variables(_architecture(state)))
    return unflatten_dict(_convert(state, {path: (_backbone_name(path), None) for path in abstract}, abstract))


def convert_segmenter(state_dict: State, abstract: Mapping) -> dict:
    """Return all variables of a segmenter from the published weights of just such a network, backbone and head.

    Args:
      state_dict: as for `convert_hrnet`, with a head: HRNet's own or OCR.
      abstract: shapes of the segmenter's variables, see `initial.abstract_variables`.

    Raises:
      UserError: if anything is left over or missing; another number of classes is such a case.
    """
    flat = flatten_dict(abstract)
    found = import_weights(state_dict, abstract)
    missing = ["/".join(path[1:-1]) for path in flat if path not in found.variables]
    if missing or found.left:
        raise UserError(
            f"the weights ({found.source}) are not those of this network: {_some(dict.fromkeys(missing)) or 'nothing'} is "
            f"missing, {_some(found.left) or 'nothing'} is left over; choose config.model and the data set's classes as they "
            "were trained, or start a training from them with config.model.init, which takes what fits"
        )
    return unflatten_dict(found.variables)


def import_weights(state_dict: State, abstract: Mapping) -> Import:
    """Take the backbone, which must fit, and of a published head what fits.

    A head is taken for networks that predict per pixel alone: the layers of a pyramid have no published counterpart.

    Raises:
      UserError: as `convert_hrnet`, and if the backbone is another one than the network's.
    """
    flat = flatten_dict(abstract)
    state, head_state = _split(state_dict)
    found_width, width = _width(state), flat["params", "backbone", "transition1_0", "conv", "kernel"].shape[-1]
    if found_width != width:
        raise UserError(
            f"the weights are of HRNet-W{found_width}, config.model.backbone is of width {width}: choose the backbone that "
            "the weights are for"
        )
    names = {path: (_backbone_name((path[0], *path[2:])), None) for path in flat if path[1] == "backbone"}
    variables = _convert(state, names, flat)
    head = next((head for head in HEADS if head.marker in head_state), None)
    if head is None:
        return Import(variables, "HRNet" if not head_state else "HRNet, another head", _modules(head_state))
    taken, left = _take_head(head, head_state, flat)
    return Import(variables | taken, head.source, left)


def to_state_dict(variables: Mapping) -> dict[str, np.ndarray]:
    """Return the weights of a backbone, or of a segmenter with HRNet's own or OCR's head, by their official names.

    PyTorch loads them with `strict=True`. Biases that are followed by a normalisation are in its mean, and 0 here.

    Raises:
      UserError: naming the first array without an official name.
    """
    flat = flatten_dict(variables)
    is_backbone = not any(path[1] == "semantic_head" for path in flat)
    head = None if is_backbone else official_head(flat)
    result = {}
    for path, array in flat.items():
        if is_backbone or path[1] == "backbone":
            name, bias_name = _backbone_name(path if is_backbone else (path[0], *path[2:])), None
        else:
            name, bias_name = head_name(head, path)
        array = np.asarray(array)
        result[name] = np.ascontiguousarray(array.transpose(3, 2, 0, 1)) if path[-1] == "kernel" else array
        if path[-1] == "mean":
            result[name.replace("running_mean", COUNTER)] = np.array(0)
            if bias_name is not None:
                result[bias_name] = np.zeros_like(array)
    return result


def _split(state_dict: State) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Strip prefixes and counters; return the arrays of the backbone and, by their own names, those of a head."""
    state = dict(state_dict)
    for _ in PREFIXES:
        for prefix in PREFIXES:
            state = {name.removeprefix(prefix): array for name, array in state.items()}
    state = {n: a for n, a in state.items() if not n.endswith(COUNTER) and not n.startswith(CLASSIFIER_PARTS)}
    if any(name.startswith("backbone.") for name in state):
        is_head = {name: not name.startswith("backbone.") for name in state}
    else:
        parts = tuple(
            f"{name.partition('.')[0]}." for head in HEADS for pair in head.names.values() for name in pair if name
        )
        is_head = {name: name.startswith(parts) for name in state}
    backbone = {name.removeprefix("backbone."): state[name] for name in state if not is_head[name]}
    backbone = {n: a for n, a in backbone.items() if not n.startswith(CLASSIFIER_PARTS)}
    return backbone, {name: state[name] for name in state if is_head[name]}


def _width(state: State) -> int:
    name = "transition1.0.0.weight"
    if name not in state or np.ndim(state[name]) != 4:
        raise UserError(
            f"these are not the weights of an HRNet: there is no {name}, but {_some(state) or 'nothing'}; docs/guide/weights.md "
            "lists the files that fit"
        )
    return state[name].shape[0]


def _architecture(state: State) -> HRNet:
    """Read off the names how deep the network is, and off the shapes how wide."""

    def count(pattern: str) -> int:
        found = (re.match(pattern, name) for name in state)
        return 1 + max((int(match[1]) for match in found if match), default=0)

    width = _width(state)
    stem = state.get("conv1.weight")
    return HRNet(
        width,
        num_modules=tuple(count(rf"stage{stage}\.(\d+)\.") for stage in (2, 3, 4)),
        num_blocks=count(r"stage2\.0\.branches\.0\.(\d+)\."),
        num_bottlenecks=count(r"layer1\.(\d+)\."),
        stem_width=64 if stem is None else stem.shape[0],
    )


def _backbone_name(path: Path) -> str:
    """Return the published name of an array of our HRNet: path with its collection, without `backbone`."""
    module = "/".join(path[1:-1])
    for pattern, name in BACKBONE_NAMES:
        match = pattern.fullmatch(module)
        if match:
            return f"{match.expand(name).replace('#', '1' if module.endswith('bn') else '0')}.{KINDS[path[-1]]}"
    raise UserError(f"{module} has no published name: it is no part of an HRNet")


def _take_head(head: Head, state: State, flat: Mapping) -> tuple[dict[Path, np.ndarray], tuple[str, ...]]:
    """Take what fits of a head whose layers are all in the network; returns also, in words, what was not taken."""
    ours = {path: "/".join(path[1:-1]).removesuffix("/conv").removesuffix("/bn") for path in flat}
    num_levels = sum(path[-2].startswith("classify_") for path in flat if path[1:] and path[1] == "semantic_head") // 2
    if not set(head.names) <= set(ours.values()) or num_levels > 1:
        return {}, (f"the head ({head.source}), which fits other values of config.model.context and representation,",)
    taken, used, left = {}, set(), []
    for path in (path for path, module in ours.items() if module in head.names):
        name, bias_name = head_name(head, path)
        if name not in state:
            continue
        used |= {name, bias_name}
        array = _to_ours(path, state[name])
        if array.shape != flat[path].shape:
            left.append(f"{name} for {array.shape[-1]} classes" if "classify" in path[-2] else f"{name} {array.shape}")
        else:
            # A constant before a normalisation is the same as a smaller mean in it.
            taken[path] = array - np.asarray(state[bias_name], np.float32) if bias_name in state else array
    return taken, (*left, *_modules(name for name in state if name not in used))


def _convert(state: State, names: Mapping[Path, tuple[str, str | None]], abstract: Mapping) -> dict[Path, np.ndarray]:
    """Bring each array into our layout; everything must be there, of the right shape, and used."""
    wanted = {name for name, _ in names.values()}
    missing, unknown = sorted(wanted - set(state)), sorted(set(state) - wanted)
    variables = {path: _to_ours(path, state[name]) for path, (name, _) in names.items() if name in state}
    wrong = [
        f"{names[path][0]} {array.shape} in place of {tuple(abstract[path].shape)}"
        for path, array in variables.items()
        if array.shape != abstract[path].shape
    ]
    if missing or unknown or wrong:
        found = [
            f"{len(items)} {what}: {_some(items)}"
            for items, what in ((missing, "names are missing"), (unknown, "are unknown"), (wrong, "have another shape"))
            if items
        ]
        raise UserError(
            f"the weights are not those of this HRNet: {'; '.join(found)}. Another file or another config.model.backbone is "
            "needed: docs/guide/weights.md lists those that fit"
        )
    return variables


def _to_ours(path: Path, array: np.ndarray) -> np.ndarray:
    array = np.asarray(array, np.float32)
    if not np.isfinite(array).all() or (path[-1] == "var" and (array < 0).any()):
        raise UserError(
            f"the weights of {'/'.join(path[1:])} are not finite or a variance is negative: the file is damaged"
        )
    return array.transpose(2, 3, 1, 0) if path[-1] == "kernel" and array.ndim == 4 else array


def _modules(names: Iterable[str]) -> tuple[str, ...]:
    """Name the layers that arrays belong to, once each."""
    return tuple(dict.fromkeys(name.rpartition(".")[0] for name in names))


def _some(names, count: int = 5) -> str:
    names = list(names)
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "")
