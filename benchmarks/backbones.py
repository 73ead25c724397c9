"""Compare ConvNeXt-T and MiT-B2 with the publishers' networks in PyTorch, eager and compiled.

    python benchmarks/backbones.py [--networks=convnext_t,mit_b2] [--kinds=inference,training] [--rounds=7] [--json=FILE]

PyTorch's networks are timm's `convnext_tiny` and transformers' `SegformerModel` with the sizes of MiT-B2; ours have their weights,
by way of our importers. On both sides, a 1×1 convolution classifies every position of each of the four stages. Inference returns
these logits. A training step computes the mean cross entropy of the four maps and its gradients, and updates all parameters by SGD
with momentum and weight decay. Nothing is dropped. Both sides use float32, and PyTorch's convolutions run channels last.

First, the script compares the logits and the loss of two steps. Then all ways take turns. It prints the median images/s of each way
and the median of the ratios within a round, with the lowest and the highest. Needs
`pip install torch torchvision timm transformers`; see also `tests/support/reference_networks.py`.
"""

import argparse
import os
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from pyrseg_jax.distributed import host_memory  # noqa: E402

host_memory.keep_memory_between_steps()  # as in a real run; it affects both frameworks

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402
import torch  # noqa: E402
from flax.traverse_util import unflatten_dict  # noqa: E402
from support.published_mits import build_transformers  # noqa: E402
from support.reference_networks import timm_models  # noqa: E402
from timing import describe_machine, print_table, times_in_turn, write_json  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from pyrseg_jax.models.backbones import BACKBONES  # noqa: E402
from pyrseg_jax.models.initial import abstract_variables  # noqa: E402
from pyrseg_jax.models.weights.importer import import_weights  # noqa: E402

NUM_CLASSES = 150
STRIDES = (4, 8, 16, 32)
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 1e-3, 0.9, 1e-4
KINDS = ("inference", "training")
HEADER = ("network", "step", "ours", "PyTorch, eager", "compiled", "ours / eager (range)", "ours / compiled (range)")


def build_convnext():
    """Return timm's ConvNeXt-T, which returns its four stages, and ours."""
    network = timm_models().create_model("convnext_tiny", features_only=True)
    # The names of the whole network, which its files have: those of the features differ in the first separator.
    state = {
        name.replace("stages_", "stages.").replace("stem_", "stem."): x for name, x in network.state_dict().items()
    }
    return network, lambda images: network(images), state, BACKBONES["convnext_t"].make(drop_path=0.0)


def build_mit():
    """Return transformers' MiT-B2, which returns its four stages, and ours."""
    ours = BACKBONES["mit_b2"].make(drop_path=0.0, epsilons="transformers")
    network = build_transformers("SegformerModel", ours.num_blocks, ours.head_width)
    return network, lambda images: network(images).hidden_states[-4:], network.state_dict(), ours


NETWORKS = {"convnext_t": build_convnext, "mit_b2": build_mit}


class Theirs(torch.nn.Module):
    """A network in PyTorch with a classifier on each stage: images (N, 3, H, W) → four maps (N, classes, h, w)."""

    def __init__(self, network: torch.nn.Module, stages, kernels: list[np.ndarray]):
        super().__init__()
        self._network, self._stages = network, stages
        self.kernels = torch.nn.ParameterList(torch.tensor(kernel.T[:, :, None, None]) for kernel in kernels)

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        return [F.conv2d(x, kernel) for x, kernel in zip(self._stages(images), self.kernels, strict=True)]


class TheirSteps:
    """The steps of a network in PyTorch on one batch."""

    def __init__(self, model: Theirs, images: np.ndarray, labels: np.ndarray):
        self._model = model.to(memory_format=torch.channels_last)
        self._images = torch.tensor(images).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
        self._labels = [torch.tensor(labels[:, ::stride, ::stride]).long() for stride in STRIDES]

    def inference(self, is_compiled: bool):
        """Return a function that runs inference and returns four maps of logits."""
        model = torch.compile(self._model) if is_compiled else self._model

        def run():
            self._model.eval()
            with torch.no_grad():
                return model(self._images)

        return run

    def training(self, is_compiled: bool):
        """Return a function that runs a training step and returns its loss."""
        model = torch.compile(self._model) if is_compiled else self._model
        optimizer = torch.optim.SGD(self._model.parameters(), LEARNING_RATE, MOMENTUM, weight_decay=WEIGHT_DECAY)

        def run():
            self._model.train()
            losses = [F.cross_entropy(x, y) for x, y in zip(model(self._images), self._labels, strict=True)]
            loss = sum(losses) / len(losses)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            return loss.item()

        return run


class OurSteps:
    """The steps of our network on one batch."""

    def __init__(self, backbone, variables: dict, kernels: list[np.ndarray], images: np.ndarray, labels: np.ndarray):
        self._backbone = backbone
        self._params = jax.device_put({"backbone": variables["params"], "kernels": kernels})
        self._images = jnp.asarray(images)
        self._labels = [jnp.asarray(labels[:, ::stride, ::stride]) for stride in STRIDES]
        self._optimizer = optax.chain(optax.add_decayed_weights(WEIGHT_DECAY), optax.sgd(LEARNING_RATE, MOMENTUM))

    def _logits(self, params: dict, images: jax.Array, train: bool) -> list[jax.Array]:
        stages = self._backbone.apply({"params": params["backbone"]}, images, train).stages
        return [x @ kernel for x, kernel in zip(stages, params["kernels"], strict=True)]

    def inference(self):
        """Compile inference; return a function that runs it and returns four maps of logits."""
        compiled = jax.jit(lambda p, x: self._logits(p, x, False)).lower(self._params, self._images).compile()
        return lambda: jax.block_until_ready(compiled(self._params, self._images))

    def training(self):
        """Compile the training step; return a function that runs it and returns its loss."""

        def loss_of(params, images, labels):
            logits = self._logits(params, images, True)
            cross_entropy = optax.softmax_cross_entropy_with_integer_labels
            return sum(cross_entropy(x, y).mean() for x, y in zip(logits, labels, strict=True)) / len(logits)

        def step(params, state, images, labels):
            loss, gradients = jax.value_and_grad(loss_of)(params, images, labels)
            updates, state = self._optimizer.update(gradients, state, params)
            return optax.apply_updates(params, updates), state, loss

        params = jax.tree.map(jnp.copy, self._params)
        state = jax.jit(self._optimizer.init)(params)
        arguments = params, state, self._images, self._labels
        compiled = jax.jit(step, donate_argnums=(0, 1)).lower(*arguments).compile()

        def run():
            nonlocal params, state
            params, state, loss = compiled(params, state, self._images, self._labels)
            return float(loss)

        return run


def import_variables(state: dict, model) -> dict:
    """Return the variables of our backbone from the arrays of a published network."""
    nested = {kind: {"backbone": tree} for kind, tree in abstract_variables(model).items()}
    importers = next(spec.importers for spec in BACKBONES.values() if isinstance(model, type(spec.make())))
    found = import_weights({name: x.numpy() for name, x in state.items()}, nested, importers)
    assert not found.left, found.left
    return unflatten_dict({(path[0], *path[2:]): array for path, array in found.variables.items()})


def prepare(name: str, options: argparse.Namespace) -> tuple[OurSteps, TheirSteps]:
    """Build both sides of a comparison, with the same weights and the same batch."""
    torch.manual_seed(0)
    rng, side = np.random.default_rng(0), options.crop_px
    network, stages, state, backbone = NETWORKS[name]()
    variables = import_variables(state, backbone)
    images = rng.normal(size=(options.batch_size, side, side, 3)).astype(np.float32)
    labels = rng.integers(0, NUM_CLASSES, (options.batch_size, side, side))
    widths = [x.shape[-1] for x in jax.eval_shape(backbone.apply, variables, images).stages]
    kernels = [rng.normal(scale=width**-0.5, size=(width, NUM_CLASSES)).astype(np.float32) for width in widths]
    theirs = TheirSteps(Theirs(network, stages, kernels), images, labels)
    return OurSteps(backbone, variables, kernels, images, labels), theirs


def compare_results(kind: str, ours, theirs) -> float:
    """Return the largest relative difference of the logits, or of the losses of two training steps."""
    if kind == "training":
        return max(abs(ours() / theirs() - 1) for _ in range(2))
    pairs = [(np.asarray(x), y.permute(0, 2, 3, 1).numpy()) for x, y in zip(ours(), theirs(), strict=True)]
    return max(np.abs(x - y).max() / np.abs(y).max() for x, y in pairs)


def measure(name: str, kind: str, options: argparse.Namespace) -> dict:
    """Measure all ways to run a step of a network."""
    ours, theirs = prepare(name, options)
    runs = {"ours": getattr(ours, kind)(), "eager": getattr(theirs, kind)(False)}
    difference = compare_results(kind, runs["ours"], runs["eager"])
    print(f"{name}, {kind}: the two sides differ by {difference:.1e}", flush=True)
    assert difference < 1e-4, "the two sides do not compute the same"
    if not options.eager_only:
        runs["compiled"] = getattr(theirs, kind)(True)
    return {"network": name, "kind": kind, "difference": float(difference)} | {
        "seconds": times_in_turn(runs, options.rounds, pause_s=0.3)
    }


def row(found: dict, batch_size: int) -> tuple[str, ...]:
    """Return the cells of a table, as in `HEADER`."""
    seconds = found["seconds"]
    medians = {way: statistics.median(times) for way, times in seconds.items()}
    rates = [f"{batch_size / medians[way]:.2f}" if way in medians else "–" for way in ("ours", "eager", "compiled")]
    ratios = []
    for way in ("eager", "compiled"):
        values = [theirs / ours for ours, theirs in zip(seconds["ours"], seconds.get(way, ()), strict=False)]
        ratios.append(f"{statistics.median(values):.2f} ({min(values):.2f} – {max(values):.2f})" if values else "–")
    return (found["network"], found["kind"], *rates, *ratios)


def main() -> None:
    """Measure what the command line asks for, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--networks", default=",".join(NETWORKS), help="names, separated by commas")
    parser.add_argument("--kinds", default=",".join(KINDS), help="inference, training, or both")
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--crop_px", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=7, help="how often each way is timed")
    parser.add_argument("--eager_only", action="store_true", help="leave out torch.compile, which takes minutes")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    found = [measure(name, kind, options) for name in options.networks.split(",") for kind in options.kinds.split(",")]
    print(
        f"\nbatch {options.batch_size} of {options.crop_px}×{options.crop_px}, {NUM_CLASSES} classes, float32; images/s"
    )
    print(describe_machine(torch=torch.__version__) + "\n")
    print_table(HEADER, [row(one, options.batch_size) for one in found])
    write_json(options.json, found)


if __name__ == "__main__":
    main()
