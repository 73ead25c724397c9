"""Run a network of ours and its PyTorch twin on the same weights and inputs, and measure how far they are apart."""

import functools

import flax.linen as nn
import jax
import numpy as np
import torch

from pyrseg_jax.models import segmenter
from pyrseg_jax.models.backbones import BACKBONES, Features
from pyrseg_jax.models.backbones.hrnet import HRNet
from pyrseg_jax.models.initial import initial_variables
from pyrseg_jax.models.segmenter import build_segmenter
from pyrseg_jax.models.weights import hrnet as torch_weights
from pyrseg_jax.models.weights.head import KINDS
from support import torch_twins

CLASSES = 5
# Beside the package's own: one with two of everything, in little.
NETWORKS = {name: spec.make for name, spec in BACKBONES.items()} | {
    "hrnet_deep": functools.partial(HRNet, width=4, num_modules=(2, 2, 2), num_blocks=2, num_bottlenecks=2)
}


class Stub(nn.Module):
    """In place of a backbone: the pixels of each 4 × 4 cell, as PyTorch's `pixel_unshuffle` orders them."""

    def __call__(self, images, train=False):
        n, h, w, c = images.shape
        cells = images.reshape(n, h // 4, 4, w // 4, 4, c).transpose(0, 1, 3, 5, 2, 4)
        return Features((), cells.reshape(n, h // 4, w // 4, 16 * c))


def draw(model, seed=0):
    """Variables with statistics, scales and biases as of a trained network, so that each one matters."""
    rng = np.random.default_rng(seed)
    drawn = initial_variables(model, seed)
    ranges = {"scale": (0.5, 1.5), "var": (0.5, 1.5), "mean": (-0.3, 0.3), "bias": (-0.3, 0.3), "gamma": (0.5, 1.0)}

    def fill(path, leaf):
        kind = path[-1].key
        if kind in ranges:
            return rng.uniform(*ranges[kind], leaf.shape).astype(np.float32)
        if kind == "kernel" and np.std(leaf) < 0.02:  # layers of logits start near zero, some at zero
            return rng.normal(0, np.prod(leaf.shape[:3]) ** -0.5, leaf.shape).astype(np.float32)
        return leaf

    drawn = jax.tree_util.tree_map_with_path(fill, drawn)
    if "auxiliary_head" in drawn["params"]:
        # As after training, where regions differ. If all are alike, OCR's normalization over them divides by nearly nothing.
        drawn["params"]["auxiliary_head"]["classify_1"]["kernel"] *= 4
    return drawn


def build(backbone="hrnet_tiny", context="none", resize="half_pixel", width=32, key_width=16, dtype="float32"):
    """Return our segmenter, per pixel, and its twin; with `backbone=None` on a stub."""
    is_stub = backbone is None
    ours = build_segmenter(
        CLASSES,
        backbone="hrnet_tiny",
        context=context,
        representation="per_pixel",
        semantic_width=width,
        key_width=key_width,
        resize=resize,
        dtype=dtype,
    )
    net = NETWORKS[backbone or "hrnet_tiny"](resize=resize, dtype=segmenter.DTYPES[dtype])
    ours = ours.clone(backbone=Stub() if is_stub else net)
    return ours, make_twin(backbone, context, resize, width, key_width)


def make_twin(backbone, context, resize, width, key_width):
    net = NETWORKS[backbone or "hrnet_tiny"]()
    shape = {"num_modules": net.num_modules, "num_blocks": net.num_blocks, "num_bottlenecks": net.num_bottlenecks}
    shape |= {"width": net.width, "convention": resize, "is_stub": backbone is None}
    if context == "none":
        return torch_twins.HRNetHead(CLASSES, **shape)
    if context == "ocr":
        return torch_twins.OCRHead(CLASSES, semantic_width=width, key_width=key_width, **shape)
    return WithContext(torch_twins.HRNet(**shape), torch_twins.CONTEXTS[context], width, key_width)


class WithContext(torch.nn.Module):
    """A backbone, one of our-named context modules, its classifier and the auxiliary one."""

    def __init__(self, backbone, context, width, key_width):
        super().__init__()
        d = backbone.width
        self.backbone, self.context = backbone, context(d, width, key_width)
        self.classify = torch_twins.conv(width, CLASSES, 1, bias=True)
        self.project, self.auxiliary = torch_twins.Pair(d, d), torch_twins.conv(d, CLASSES, 1, bias=True)

    def forward(self, x):
        features = self.backbone.features(x)
        return self.classify(self.context(features)), self.auxiliary(self.project(features))


def build_pyramid(backbone="hrnet_tiny", width=32, key_width=16, unity_width=8, dtype="float32", classes=CLASSES):
    """Return our whole network, with both pyramids, and its twin."""
    ours = build_segmenter(
        classes,
        backbone=backbone,
        semantic_width=width,
        key_width=key_width,
        unity_width=unity_width,
        dtype=dtype,
    )
    net = NETWORKS[backbone]()
    shape = {"num_modules": net.num_modules, "num_blocks": net.num_blocks, "num_bottlenecks": net.num_bottlenecks}
    return ours, torch_twins.PyramidNetwork(classes, net.width, width, key_width, unity_width, **shape)


def load_pyramid(twin, variables):
    """Give the twin of `build_pyramid` our weights: but for the backbone's, the names are the same."""
    backbone = {collection: tree["backbone"] for collection, tree in variables.items()}
    state = {f"backbone.{name}": array for name, array in torch_weights.to_state_dict(backbone).items()}
    for path, array in jax.tree_util.tree_leaves_with_path(variables):
        names = [entry.key for entry in path][1:]
        if names[0] != "backbone":
            array = np.asarray(array)
            array = array.transpose(3, 2, 0, 1) if names[-1] == "kernel" else array
            state[".".join([*names[:-1], KINDS.get(names[-1], names[-1])])] = array
    missing, unknown = twin.load_state_dict(
        {name: torch.tensor(np.array(a)) for name, a in state.items()}, strict=False
    )
    assert not unknown, unknown
    assert all(name.endswith("num_batches_tracked") for name in missing), missing


def state_of(variables, context):
    """Return the twin's state dict. ANL and CCNet have our own names there, which are written out here."""
    if context in ("none", "ocr"):
        return torch_weights.to_state_dict(variables)
    parts = {collection: dict(tree) for collection, tree in variables.items()}
    backbone = {collection: tree.get("backbone", {}) for collection, tree in parts.items()}
    state = {f"backbone.{name}": array for name, array in torch_weights.to_state_dict(backbone).items()}
    places = {
        ("context", "context"): "context.",
        ("semantic_head", "classify_4"): "classify.",
        ("auxiliary_head", "project_1"): "project.",
        ("auxiliary_head", "classify_1"): "auxiliary.",
    }
    for path, array in jax.tree_util.tree_leaves_with_path(variables):
        names = [entry.key for entry in path][1:]
        if names[0] == "backbone":
            continue
        kind = KINDS.get(names[-1], names[-1])
        inner = ".".join([*names[2:-1], kind])
        array = np.asarray(array)
        state[places[tuple(names[:2])] + inner] = array.transpose(3, 2, 0, 1) if names[-1] == "kernel" else array
    return state


def load(twin, variables, context):
    state = {name: torch.tensor(np.array(array)) for name, array in state_of(variables, context).items()}
    missing, unknown = twin.load_state_dict(state, strict=False)
    assert not unknown, unknown
    assert all(name.endswith("num_batches_tracked") for name in missing), missing


def run_twin(twin, images, train):
    """Return (logits, auxiliary logits or None) in NHWC."""
    twin.train(train)
    dtype = next(twin.parameters()).dtype
    outputs = twin(torch.tensor(images.transpose(0, 3, 1, 2)).to(dtype))
    return tuple(None if y is None else y.permute(0, 2, 3, 1) for y in outputs)


def keep_all(call, args, kwargs, context):
    """Leave dropout out: it is random in both, and differently so."""
    return args[0] if isinstance(context.module, nn.Dropout) else call(*args, **kwargs)


def make_run(model, train):
    """Return a jitted (variables, images) → (logits, auxiliary, batch statistics)."""

    def run(variables, images):
        with nn.intercept_methods(keep_all):
            predicted, updates = model.apply(variables, images, train, mutable=["batch_stats"])
        return predicted.semantic[-1], predicted.auxiliary, updates["batch_stats"]

    return jax.jit(run)


def far(found, expected) -> float:
    """The largest difference, relative to the largest value."""
    expected = expected.detach().numpy()
    return float(np.abs(np.asarray(found) - expected).max() / np.abs(expected).max())


def make_training(model, weights):
    """Return a jitted (variables, images) → (gradients, logits, auxiliary, batch statistics) of a weighted sum of all logits."""

    def loss(params, batch_stats, images):
        with nn.intercept_methods(keep_all):
            variables = {"params": params, "batch_stats": batch_stats}
            predicted, updates = model.apply(variables, images, True, mutable=["batch_stats"])
        outputs = (predicted.semantic[-1], predicted.auxiliary)
        total = sum((w * y).sum() for w, y in zip(weights, outputs, strict=True) if y is not None)
        return total, (*outputs, updates["batch_stats"])

    def run(variables, images):
        gradients, outputs = jax.grad(loss, has_aux=True)(variables["params"], variables["batch_stats"], images)
        return gradients, *outputs

    return jax.jit(run)


def train_twin(twin, images, weights):
    """Return the twin's logits in training, after leaving its gradients and new statistics in it."""
    outputs = run_twin(twin, images, train=True)
    sum((torch.tensor(w).to(y) * y).sum() for w, y in zip(weights, outputs, strict=True) if y is not None).backward()
    return outputs


def match(variables, context, names):
    """Return path of our array → name of the twin's, for these names, by sending numbered arrays the usual way."""
    flat = jax.tree_util.tree_leaves_with_path(variables)
    tree = jax.tree_util.tree_structure(variables)
    numbered = [np.full(leaf.shape, i + 1, np.float32) for i, (_, leaf) in enumerate(flat)]
    sent = state_of(jax.tree_util.tree_unflatten(tree, numbered), context)
    # Biases that stay 0 are not ours: a normalization follows.
    arrived = {n: int(sent[n].flat[0]) - 1 for n in names if n in sent and np.any(sent[n])}
    return {names_of(flat[number][0])[1:]: name for name, number in arrived.items()}


def names_of(path):
    return tuple(entry.key for entry in path)


def to_ours(array):
    array = array.detach().numpy()
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array


def far_gradients(gradients, twin, variables, context) -> float:
    """The largest distance of any array, relative to its norm, or to 0.1 % of that of all where an array's is smaller.

    Some are 0 but for rounding: those of biases that a normalization removes again.
    """
    named = dict(twin.named_parameters())
    pairs = match(variables, context, named)
    ours = {names_of(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(gradients)}
    assert set(pairs) == set(ours)
    theirs = {path: to_ours(named[name].grad) for path, name in pairs.items()}
    whole = np.sqrt(sum(np.sum(g.astype(np.float64) ** 2) for g in theirs.values()))
    return max(
        float(np.linalg.norm(ours[path] - g) / max(np.linalg.norm(g), 1e-3 * whole)) for path, g in theirs.items()
    )


def far_twins(twin, reference) -> float:
    """As `far_gradients`, of one twin from another: in float32 from float64, what is lost by rounding alone."""
    theirs = {name: p.grad.numpy().astype(np.float64) for name, p in reference.named_parameters()}
    whole = np.sqrt(sum(np.sum(g**2) for g in theirs.values()))
    return max(
        float(np.linalg.norm(p.grad.numpy() - theirs[name]) / max(np.linalg.norm(theirs[name]), 1e-3 * whole))
        for name, p in twin.named_parameters()
    )


def images_of(height, width, count=2, seed=1):
    return np.random.default_rng(seed).normal(size=(count, height, width, 3)).astype(np.float32)
