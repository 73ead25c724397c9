"""Training and inference steps of our networks and of their PyTorch twins (tests/support/torch_twins.py), doing the same work."""

import os
import sys
from pathlib import Path

# Both frameworks share the device, so neither may reserve all of its memory.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from pyrseg_jax.distributed import host_memory  # noqa: E402

host_memory.keep_memory_between_steps()  # as in a real run; it affects both frameworks

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from flax.traverse_util import flatten_dict  # noqa: E402
from support import torch_twins  # noqa: E402
from timing import ready  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from pyrseg_jax import conventions  # noqa: E402
from pyrseg_jax.distributed import mesh as mesh_lib  # noqa: E402
from pyrseg_jax.export.write import segment  # noqa: E402
from pyrseg_jax.models.backbones import BACKBONES  # noqa: E402
from pyrseg_jax.models.initial import initial_variables  # noqa: E402
from pyrseg_jax.run import config as config_lib  # noqa: E402
from pyrseg_jax.run import experiment  # noqa: E402
from pyrseg_jax.training.step import initial_state, make_train_step  # noqa: E402

# HRNet's own classifier, or the paper's context module with the heads of both pyramids.
HEADS = ("plain", "pyramid")
STRIDES = (32, 16, 8, 4)


def make_config(backbone: str, head: str, dtype: str, **changes) -> config_lib.Config:
    """Return the configuration of one of our networks; `changes` are further keys."""
    values = config_lib.defaults()
    values.model.backbone, values.model.dtype = backbone, dtype
    if head == "plain":
        values.model.context, values.model.representation = "none", "per_pixel"
    values.update_from_flattened_dict(changes)
    return config_lib.resolve(values)


def draw_batch(size: int, side: int, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw images (N, H, W, 3), and label maps (N, H, W) of blocks that give every level some unit-cells."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (size, side, side, 3), np.uint8)
    blocks = rng.integers(0, num_classes, (size, -(-side // 24), -(-side // 24)), np.uint8)
    return images, np.repeat(np.repeat(blocks, 24, 1), 24, 2)[:, :side, :side]


class Ours:
    """Our training step and our inference, on one device."""

    def __init__(self, config: config_lib.Config, num_classes: int, images: np.ndarray, labels: np.ndarray):
        self._model, self._optimizer = (
            experiment.make_model(config, num_classes),
            experiment.make_optimizer(config),
        )
        self._mesh = mesh_lib.make_mesh(1)
        self._variables = jax.device_put(initial_variables(self._model, 0), mesh_lib.replicated(self._mesh))
        self._batch = mesh_lib.images_to_devices(self._mesh, {"image": images, "label": labels})
        self._objective, self._threshold = experiment.make_objective(config), config.evaluation.threshold

    def prepare_training(self):
        """Compile the training step. Return a function that runs it, and the compiled program."""
        step = make_train_step(self._model, self._optimizer, self._objective, self._mesh)
        # Copy the variables, because the step takes over the memory of its state.
        variables = jax.tree.map(jnp.copy, self._variables)
        state = jax.device_put(initial_state(variables, self._optimizer), mesh_lib.replicated(self._mesh))
        compiled = step.lower(state, self._batch).compile()

        def run():
            nonlocal state
            state, metrics = compiled(state, self._batch)
            return float(metrics["loss"])

        return run, compiled

    def prepare_inference(self):
        """Compile inference: images → class of every pixel, as in an exported model. Return as `prepare_training` does."""
        classes, arguments = self._inference()
        compiled = classes.lower(*arguments).compile()
        return ready(compiled, *arguments), compiled

    def flops(self, kind: str) -> float:
        """Return the FLOPs of one run, which XLA counts before it compiles the program."""
        if kind == "inference":
            run, arguments = self._inference()
        else:
            run = make_train_step(self._model, self._optimizer, self._objective, self._mesh)
            arguments = initial_state(self._variables, self._optimizer), self._batch
        return run.lower(*arguments).cost_analysis()["flops"]

    def _inference(self):
        weights = {"/".join(path): array for path, array in flatten_dict(self._variables).items()}
        run = jax.jit(lambda weights, images: segment(self._model, weights, images, self._threshold)["labels"])
        return run, (weights, self._batch["image"])


class Theirs:
    """The same steps in PyTorch: channels last, and with automatic mixed precision for bfloat16."""

    def __init__(self, config: config_lib.Config, num_classes: int, images: np.ndarray, labels: np.ndarray):
        self._device = "cuda" if jax.default_backend() == "gpu" else "cpu"
        net, model = BACKBONES[config.model.backbone].make(), config.model
        shape = {"num_modules": net.num_modules, "num_blocks": net.num_blocks, "num_bottlenecks": net.num_bottlenecks}
        if model.representation == "pyramid":
            widths = (model.semantic_width, model.key_width, model.unity_width)
            twin = torch_twins.PyramidNetwork(num_classes, net.width, *widths, **shape)
        else:
            twin = torch_twins.HRNetHead(num_classes, net.width, **shape)
        self._twin = twin.to(self._device, memory_format=torch.channels_last)
        self._dtype = getattr(torch, model.dtype)
        self._images = torch.tensor(images, device=self._device)
        self._labels = torch.tensor(labels, device=self._device).long()
        self._threshold = config.evaluation.threshold

    def _predict(self, network, images):
        mean, std = (
            torch.tensor(v, device=self._device).view(3, 1, 1) for v in (conventions.IMAGE_MEAN, conventions.IMAGE_STD)
        )
        x = ((images.permute(0, 3, 1, 2).float() - mean) / std).contiguous(memory_format=torch.channels_last)
        with torch.autocast(self._device, torch.bfloat16, enabled=self._dtype == torch.bfloat16):
            semantic, unity = network(x)
        if unity is None:  # the second output would be an auxiliary classifier, which the plain head does not have
            return [semantic.float()], []
        return [y.float() for y in semantic], [u.float() for u in unity]

    def _compiled(self, is_compiled: bool):
        return torch.compile(self._twin) if is_compiled else self._twin

    def prepare_training(self, is_compiled: bool):
        """Return a function that runs a training step. Its targets are built beforehand; our step builds them every time."""
        network = self._compiled(is_compiled)
        optimizer = torch.optim.SGD(self._twin.parameters(), 1e-3, momentum=0.9, weight_decay=1e-4)
        unity = [_is_unit(self._labels, stride) for stride in STRIDES[:-1]]

        def run():
            self._twin.train()
            semantic, predicted = self._predict(network, self._images)
            losses = []
            for logits in semantic:
                stride = self._labels.shape[1] // logits.shape[2]
                losses.append(F.cross_entropy(logits, self._labels[:, stride // 2 :: stride, stride // 2 :: stride]))
            loss = sum(losses) / len(losses)
            if predicted:
                loss = loss + sum(map(F.binary_cross_entropy_with_logits, predicted, unity)) / len(predicted)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            return loss.item()

        return run

    def prepare_inference(self, is_compiled: bool):
        """Return a function that runs inference: images → fused pyramids → class of every pixel."""
        network = self._compiled(is_compiled)

        @torch.inference_mode()
        def run():
            self._twin.eval()
            semantic, unity = self._predict(network, self._images)
            probs = [torch.softmax(y, 1) for y in semantic]
            fused, is_open = probs[0], None
            for finer, u in zip(probs[1:], unity, strict=True):
                mixed = torch.sigmoid(u) < self._threshold
                is_open = mixed if is_open is None else is_open & mixed
                is_open = is_open.repeat_interleave(2, 1).repeat_interleave(2, 2)
                fused = torch.where(is_open[:, None], finer, fused.repeat_interleave(2, 2).repeat_interleave(2, 3))
            size = self._images.shape[1:3]
            classes = [F.interpolate(f[None], size, mode="bilinear")[0].argmax(0).byte() for f in fused]
            classes = torch.stack(classes)
            if self._device == "cuda":
                torch.cuda.synchronize()
            return classes

        return run


def _is_unit(labels: torch.Tensor, stride: int) -> torch.Tensor:
    n, h, w = labels.shape
    cells = labels.view(n, h // stride, stride, w // stride, stride)
    return (cells.amax((2, 4)) == cells.amin((2, 4))).float()


def peak_gib(run) -> float | None:
    """Run once, and return PyTorch's peak memory in GiB; None on CPU, where PyTorch does not measure it."""
    if not torch.cuda.is_available() or jax.default_backend() != "gpu":
        return None
    torch.cuda.reset_peak_memory_stats()
    run()
    return torch.cuda.max_memory_allocated() / 2**30


def matrix_product(dtype: str):
    """Return a function that runs a large matrix product, and its FLOPs. Its rate is the highest that the device can reach."""
    side = 8192 if jax.default_backend() != "cpu" else 2048
    x = jnp.asarray(np.random.default_rng(0).normal(size=(side, side)), dtype)
    return ready(jax.jit(lambda x: x @ x), x), 2 * side**3
