"""Compare a context module, with its classifiers, with a head of mmsegmentation on the same weights and feature maps.

Both get the same random maps instead of those of a backbone. Our weights come from the state dict of mmsegmentation's heads through
the importer head of `models.weights`, so that its names are tested, too.

    pair = build_pair("fcn", MMSEG_POOLING, {"type": "FCNHead", "num_convs": 2})
    assert pair.compare_outputs() < 1e-5
    gradients, statistics = pair.compare_training()
    assert max(gradients, statistics) < 1e-3
    assert max(pair.compare_training("float64")) < 1e-6

In float32, a ReLU whose input is nearly 0 may be open in one network and closed in the other, which changes gradients by some
hundredths. In float64 this does not happen, so the gradients must agree for every drawing of weights and maps; see `double.py`.
PyTorch's running variance is not compared, since ours is the biased one.
"""

import contextlib
import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax.traverse_util import flatten_dict, unflatten_dict

from pyrseg_jax.models.backbones import Features
from pyrseg_jax.models.contexts import Pooled
from pyrseg_jax.models.initial import abstract_variables
from pyrseg_jax.models.segmenter import Pyramids, Segmenter, build_segmenter
from pyrseg_jax.models.weights.head import Head
from pyrseg_jax.models.weights.importer import Importer, import_weights
from support.double import float64, to_float64
from support.parity import keep_all
from support.reference_networks import mmseg_models, randomize

CLASSES = 7
CHANNELS = (12, 16, 24, 64)  # of C2 … C5
WIDTH = 32
KERNEL = "backbone.stem.0.weight"  # the only array of the stub that stands for a backbone


class Maps(nn.Module):
    """A backbone that returns given maps, whatever the images are.

    Attributes:
      stages: C2 … C5, each (N, h, w, channels); the final map is the last one.
      stem: the map before the first stage.
    """

    stages: Sequence[np.ndarray]
    stem: np.ndarray | None = None

    @nn.compact
    def __call__(self, images, train=False):
        self.param("kernel", nn.initializers.zeros, (1, 1, 3, 1))
        stages = tuple(jnp.asarray(stage) for stage in self.stages)
        return Features(stages, stages[-1], None if self.stem is None else jnp.asarray(self.stem))


def draw_maps(
    sizes: Sequence[tuple[int, int]], channels: Sequence[int] = CHANNELS, num_images: int = 2, seed: int = 0
) -> tuple[np.ndarray, ...]:
    """Draw feature maps as after a ReLU.

    Args:
      sizes: height and width of each stage, fine → coarse.
      channels: of each stage.
      num_images: N.
      seed: for the random values.
    """
    rng = np.random.default_rng(seed)
    return tuple(
        np.maximum(rng.normal(size=(num_images, *size, width)), 0).astype(np.float32)
        for size, width in zip(sizes, channels, strict=True)
    )


def sizes_at(height: int, width: int, output_stride: int = 8) -> tuple[tuple[int, int], ...]:
    """Return the sizes of C2 … C5 for an image of this many pixels."""
    strides = [min(stride, output_stride) for stride in (4, 8, 16, 32)]
    return tuple((-(-height // stride), -(-width // stride)) for stride in strides)


@dataclasses.dataclass
class Pair:
    """Our network and mmsegmentation's heads, with the same weights.

    Attributes:
      ours: a segmenter on `Maps`.
      build: number format → the segmenter of that format, on another backbone.
      theirs: mmsegmentation's heads by the prefix of their names, such as "decode_head" and "auxiliary_head".
      heads: the importer heads through which weights come.
      variables: our variables, from the weights of theirs.
      maps: C2 … C5.
      read_ours: what is compared of our outputs, by name.
      read_theirs: the same of the outputs of their heads by prefix; maps are (N, C, h, w).
    """

    ours: Segmenter
    build: Callable[[str], Segmenter]
    theirs: Mapping[str, Any]
    heads: tuple[Head, ...]
    variables: dict
    maps: tuple[np.ndarray, ...]
    read_ours: Callable[[Pyramids], dict[str, Any]]
    read_theirs: Callable[[dict[str, Any]], dict[str, Any]]

    def run_ours(self, variables: dict, train: bool, ours: Segmenter | None = None) -> tuple[Pyramids, dict]:
        """Return our outputs without dropout, and the new batch statistics."""
        images = jnp.zeros((len(self.maps[0]), 64, 64, 3))
        with nn.intercept_methods(keep_all):
            found, updates = (ours or self.ours).apply(variables, images, train, mutable=["batch_stats"])
        return found, updates["batch_stats"]

    def run_theirs(self, train: bool, double: bool = False) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return what is compared of their outputs without dropout, and copies of the heads, which may keep gradients."""
        heads = {name: copy.deepcopy(head).train(train) for name, head in self.theirs.items()}
        maps = [torch.from_numpy(x.transpose(0, 3, 1, 2).copy()) for x in self.maps]
        if double:
            heads, maps = {name: head.double() for name, head in heads.items()}, [x.double() for x in maps]
        for head in heads.values():
            for module in head.modules():
                if isinstance(module, torch.nn.Dropout | torch.nn.Dropout2d):
                    module.p = 0.0
        return self.read_theirs({name: head(maps) for name, head in heads.items()}), heads

    def compare_outputs(self) -> float:
        """Return the largest difference of an output in evaluation, relative to its largest value; see `far`."""
        return max(self.compare_each_output().values())

    def compare_each_output(self) -> dict[str, float]:
        """Return the difference of each output in evaluation by its name."""
        with torch.no_grad():
            expected, _ = self.run_theirs(train=False)
        found = jax.jit(lambda variables: self.read_ours(self.run_ours(variables, False)[0]))(self.variables)
        assert set(found) == set(expected)
        return {name: far(channels_first(found[name]), expected[name].numpy()) for name in expected}

    def compare_training(self, dtype: str = "float32") -> tuple[float, float]:
        """Return the largest difference of gradients, and that of running statistics, after one forward pass in training.

        The gradients are those of a random weighting of all outputs with respect to all parameters. Each array's difference is
        relative to the largest value of the array, computed by mmsegmentation in float64. Ours computes in `dtype`.
        """
        rng = np.random.default_rng(1)
        outputs, heads = self.run_theirs(train=True, double=True)
        weights = {name: rng.normal(size=tuple(output.shape)) for name, output in outputs.items()}
        sum((torch.from_numpy(weights[name]) * outputs[name]).sum() for name in outputs).backward()
        gradients, statistics = self.differentiate(weights, dtype)
        state = {
            f"{prefix}.{name}": parameter.grad.numpy()
            for prefix, head in heads.items()
            for name, parameter in head.named_parameters()
            if parameter.grad is not None
        }
        expected = import_state(state, self.ours, self.heads)["params"]
        after = import_state(state_of(heads), self.ours, self.heads)["batch_stats"]
        return compare_trees(gradients, expected), compare_trees(statistics, after, skip=("var",))

    def differentiate(self, weights: Mapping[str, np.ndarray], dtype: str) -> tuple[dict, dict]:
        """Return the gradients of a weighted sum of our outputs in training, and the new batch statistics."""
        is_double = dtype == "float64"
        with float64() if is_double else contextlib.nullcontext():
            ours, variables = self.ours, self.variables
            if is_double:
                maps = Maps(tuple(x.astype(np.float64) for x in self.maps))
                ours, variables = self.build(dtype).clone(backbone=maps), to_float64(variables)

            def loss(params):
                found, statistics = self.run_ours({**variables, "params": params}, True, ours)
                found = {name: channels_first(x) for name, x in self.read_ours(found).items()}
                return sum((weights[name] * found[name]).sum() for name in weights), statistics

            return jax.device_get(jax.jit(jax.grad(loss, has_aux=True))(variables["params"]))


def build_pair(
    context: str,
    heads: tuple[Head, ...],
    decode_head: Mapping[str, Any],
    *,
    sizes: Sequence[tuple[int, int]] | None = None,
    num_images: int = 2,
    has_auxiliary: bool = True,
    align_corners: bool = False,
    channels: Sequence[int] = CHANNELS,
    read_ours: Callable[[Pyramids], dict[str, Any]] | None = None,
    read_theirs: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    seed: int = 0,
    **options: Any,
) -> Pair:
    """Build both networks and give them the same random weights.

    Args:
      context: a key of `CONTEXTS`.
      heads: importer heads, of which the one for this context is found by its marker.
      decode_head: mmsegmentation's type and options of the head. The channels, classes and the convention of resizing are added.
      sizes: height and width of C2 … C5; by default those of an image of 128 × 192 pixels at output stride 8.
      num_images: N.
      has_auxiliary: whether the auxiliary classifier on C4 is built, too.
      align_corners: the convention of resizing, of both.
      channels: of C2 … C5.
      read_ours, read_theirs: what is compared; by default the logits of both classifiers.
      seed: for weights and maps.
      options: more arguments of `build_segmenter`, such as `crop_px`.
    """
    models = mmseg_models()
    common = {"num_classes": CLASSES, "norm_cfg": {"type": "BN"}, "align_corners": align_corners}
    decode = {"in_channels": channels[3], "in_index": 3, "channels": WIDTH} | common | dict(decode_head)
    theirs = {"decode_head": randomize(models.build(decode), seed)}
    if has_auxiliary:
        shape = {"in_channels": channels[2], "in_index": 2, "channels": 256, "num_convs": 1, "concat_input": False}
        theirs["auxiliary_head"] = randomize(models.build({"type": "FCNHead"} | shape | common), seed + 1)
    maps = draw_maps(sizes_at(128, 192) if sizes is None else sizes, channels, num_images, seed)
    options = {"semantic_width": WIDTH, "key_width": WIDTH // 2} | options
    if align_corners:
        options["resize"] = "align_corners"

    def build(dtype: str) -> Segmenter:
        shape = {"context": context, "representation": "per_pixel", "dtype": dtype} | options
        model = build_segmenter(CLASSES, backbone="resnet_tiny", **shape)
        if isinstance(model.context, Pooled):  # maps of any size, so none but the finest level
            model = model.clone(context=model.context.clone(num_levels=1))
        return model

    ours = build("float32").clone(backbone=Maps(maps))
    variables = import_state(state_of(theirs), ours, heads)
    return Pair(ours, build, theirs, heads, variables, maps, read_ours or logits_of, read_theirs or logits_of_heads)


def logits_of(found: Pyramids) -> dict[str, Any]:
    """Return our logits by the prefix of mmsegmentation's head."""
    logits = {"decode_head": found.semantic[-1], "auxiliary_head": found.auxiliary}
    return {name: value for name, value in logits.items() if value is not None}


def logits_of_heads(outputs: dict[str, Any]) -> dict[str, Any]:
    """Return the first output of each head, its logits."""
    return {name: output[0] if isinstance(output, tuple | list) else output for name, output in outputs.items()}


def state_of(heads: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the arrays of mmsegmentation's heads under the names of a checkpoint."""
    return {
        f"{prefix}.{name}": tensor.detach().numpy()
        for prefix, head in heads.items()
        for name, tensor in head.state_dict().items()
    }


def import_state(state: Mapping[str, np.ndarray], model: Segmenter, heads: tuple[Head, ...]) -> dict:
    """Import arrays of mmsegmentation's heads as from a checkpoint, and check that none is left over."""

    def member(shape: tuple[int, ...]) -> str:
        return "maps"

    importer = Importer("maps", KERNEL.removeprefix("backbone."), member, lambda path: "stem.0.weight", heads=heads)
    abstract = abstract_variables(model)
    found = import_weights({**state, KERNEL: np.zeros((1, 3, 1, 1), np.float32)}, abstract, [importer])
    assert not found.left, found.left
    return unflatten_dict(found.variables)


def channels_first(x: Any) -> Any:
    """Return a map (N, h, w, C) as (N, C, h, w), and arrays of other ranks as they are."""
    return x.transpose(0, 3, 1, 2) if x.ndim == 4 else x


def far(found: Any, expected: np.ndarray) -> float:
    """Return the largest difference, relative to the largest expected value."""
    found = np.asarray(found)
    assert found.shape == expected.shape, (found.shape, expected.shape)
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def compare_trees(found: Mapping, expected: Mapping, skip: tuple[str, ...] = ()) -> float:
    """Return the largest difference of all arrays outside of the backbone; print the worst, for a test that fails.

    Each array's difference is relative to its largest value, or to 0.1 % of that of all arrays where an array's is smaller: some
    are 0 but for rounding, such as the gradients of biases that a normalization or a softmax removes again. Arrays of ours that are
    not expected, since they are not learned there, must be 0.
    """
    ours, theirs = (
        {path: x for path, x in flatten_dict(tree).items() if path[0] != "backbone"} for tree in (found, expected)
    )
    assert set(theirs) <= set(ours), set(theirs) - set(ours)
    assert not any(np.any(ours[path]) for path in set(ours) - set(theirs)), set(ours) - set(theirs)
    least = 1e-3 * max(np.abs(x).max() for x in theirs.values())
    distances = {
        "/".join(path): np.abs(ours[path] - x).max() / max(np.abs(x).max(), least)
        for path, x in theirs.items()
        if path[-1] not in skip
    }
    worst = max(distances, key=distances.__getitem__)
    print(f"largest difference: {distances[worst]:.1e} in {worst}")
    return float(distances[worst])
