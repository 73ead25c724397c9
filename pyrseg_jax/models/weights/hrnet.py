"""PyTorch's HRNet weights and this package's variables, in both directions.

Every array of ours has one published name. Every published array has a place here, or belongs to a part that this package does not
have (the ImageNet classifier), or is an error.
"""

import re
from collections.abc import Mapping

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from pyrseg_jax.errors import UserError
from pyrseg_jax.models.backbones.hrnet import HRNet
from pyrseg_jax.models.initial import abstract_variables
from pyrseg_jax.models.weights.head import COUNTER, State, head_name
from pyrseg_jax.models.weights.heads import official_head
from pyrseg_jax.models.weights.hrnet_layout import HRNET, MARKER, name_of
from pyrseg_jax.models.weights.importer import (
    adapt,
    convert,
    find_heads,
    import_weights,
    recognize,
    split,
)
from pyrseg_jax.models.weights.in_place_abn import is_in_place
from pyrseg_jax.models.weights.prefixes import some_of


def convert_hrnet(state_dict: State) -> dict:
    """Return the variables of the HRNet whose published weights these are: `{"params", "batch_stats"}`.

    Args:
      state_dict: arrays by the names of the official release, timm, openseg or mmsegmentation. Width and depth are read from
        them. Heads and classifiers are skipped.

    Raises:
      UserError: listing the names that are missing or unknown and the shapes that do not fit.
    """
    state, head_state = split(state_dict, recognize(state_dict, (HRNET,)))
    abstract = flatten_dict(abstract_variables(_architecture(state)))
    variables = convert(HRNET.family, state, {path: (name_of(path), None) for path in abstract}, abstract)
    if heads := find_heads(HRNET, head_state):
        variables, _ = adapt(variables, heads[0].input, is_in_place(heads[0], head_state, state_dict))
    return unflatten_dict(variables)


def convert_segmenter(state_dict: State, abstract: Mapping) -> dict:
    """Return all variables of a segmenter from the published weights of exactly such a network, backbone and head.

    Args:
      state_dict: the same as for `convert_hrnet`, with a head: HRNet's own or OCR.
      abstract: shapes of the segmenter's variables, see `initial.abstract_variables`.

    Raises:
      UserError: if anything is left over or missing; another number of classes is such a case.
    """
    flat = flatten_dict(abstract)
    found = import_weights(state_dict, abstract, (HRNET,))
    missing = ["/".join(path[1:-1]) for path in flat if path not in found.variables]
    if missing or found.left:
        raise UserError(
            f"the weights ({found.source}) do not fit this network: {some_of(dict.fromkeys(missing)) or 'nothing'} is "
            f"missing, {some_of(found.left) or 'nothing'} is not used; choose the network and the classes as they were "
            "trained, or start a training from these weights, which takes what fits"
        )
    return unflatten_dict(found.variables)


def to_state_dict(variables: Mapping) -> dict[str, np.ndarray]:
    """Return the weights of an HRNet, or of a segmenter with HRNet's own or OCR's head, by their official names.

    PyTorch loads them with `strict=True`. A bias that a normalization follows is part of the normalization's mean here, and is 0 in
    the result.

    Raises:
      UserError: naming the first array that has no official name.
    """
    flat = flatten_dict(variables)
    is_backbone = not any(path[1] == "semantic_head" for path in flat)
    head = official_head(flat)
    result = {}
    for path, array in flat.items():
        if is_backbone or path[1] == "backbone":
            name, bias_name = name_of(path if is_backbone else (path[0], *path[2:])), None
        else:
            name, bias_name = head_name(head, path)
        array = np.asarray(array)
        result[name] = np.ascontiguousarray(array.transpose(3, 2, 0, 1)) if path[-1] == "kernel" else array
        if path[-1] == "mean":
            result[name.replace("running_mean", COUNTER)] = np.array(0)
            if bias_name is not None:
                result[bias_name] = np.zeros_like(array)
    return result


def _architecture(state: State) -> HRNet:
    """Read from the names how deep the network is, and from the shapes how wide."""

    def count(pattern: str) -> int:
        found = (re.match(pattern, name) for name in state)
        return 1 + max((int(match[1]) for match in found if match), default=0)

    stem = state.get("conv1.weight")
    return HRNet(
        state[MARKER].shape[0],
        num_modules=tuple(count(rf"stage{stage}\.(\d+)\.") for stage in (2, 3, 4)),
        num_blocks=count(r"stage2\.0\.branches\.0\.(\d+)\."),
        num_bottlenecks=count(r"layer1\.(\d+)\."),
        stem_width=64 if stem is None else stem.shape[0],
    )
