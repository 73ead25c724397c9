"""A backbone that shares nothing with HRNet goes through every command: its spec is all that the rest of the package knows."""

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.typing import DTypeLike
from PIL import Image
from support.command_line import TINY
from support.data_sets import draw_pair, write_folder
from support.runs import tiny_config
from support.training import make_batch, sgd

import pyrseg_jax
from pyrseg_jax import main
from pyrseg_jax.distributed import mesh as mesh_lib
from pyrseg_jax.models.backbones import BACKBONES, AuxiliaryHead, BackboneSpec, Features
from pyrseg_jax.models.contexts import CONTEXTS, ContextLoss, ContextOutput, ContextSpec
from pyrseg_jax.models.initial import initial_variables
from pyrseg_jax.models.layers import average_levels
from pyrseg_jax.models.resample import resize
from pyrseg_jax.run import experiment
from pyrseg_jax.training.step import initial_state, make_train_step

STRIDE, WIDTH = 8, 12


class Patches(nn.Module):
    """A dense layer over patches of 8 × 8 pixels, plus a positional embedding; no convolution and no batch normalization."""

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, images, train=False):
        n, height, width, _ = images.shape
        grid = (height // STRIDE, width // STRIDE)
        patches = images.reshape(n, grid[0], STRIDE, grid[1], STRIDE, 3).transpose(0, 1, 3, 2, 4, 5)
        x = nn.Dense(WIDTH, dtype=self.dtype, name="embed")(patches.reshape(n, *grid, -1))
        position = self.param("position", nn.initializers.normal(0.02), (1, 4, 4, WIDTH))
        x = nn.relu(x + resize(position, grid, "half_pixel").astype(self.dtype))
        return Features((x, x[:, ::2, ::2]), x)


@pytest.fixture
def toy(monkeypatch):
    monkeypatch.setitem(BACKBONES, "toy", BackboneSpec(Patches, output_stride=STRIDE))


class Prototype(nn.Module):
    """A context module that uses all that its contract offers: a stage, an auxiliary classifier, an extra loss and a state."""

    num_levels: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, features, auxiliary, train):
        (coarse,) = features.stages
        memory = self.variable("batch_stats", "memory", jnp.zeros, (WIDTH,))
        seen = coarse.astype(jnp.float32).mean((0, 1, 2))
        if train and not self.is_initializing():
            memory.value = 0.5 * memory.value + 0.5 * seen
        x = features.final + resize(auxiliary.mean(-1, keepdims=True), features.final.shape[1:3], "nearest")
        levels = average_levels(x + memory.value, self.num_levels)
        return ContextOutput(levels, outputs={"gap": seen - memory.value})


def test_a_toy_context_brings_an_extra_loss_and_a_state(monkeypatch):
    spec = BackboneSpec(Patches, output_stride=STRIDE, auxiliary=AuxiliaryHead(stage=1))
    monkeypatch.setitem(BACKBONES, "toy", spec)
    context = ContextSpec(
        lambda settings: Prototype(settings.num_levels, settings.dtype),
        reads=(1,),
        has_auxiliary=True,
        losses={"distance": ContextLoss(3.0, lambda outputs, labels, _: jnp.square(outputs["gap"]).sum())},
    )
    monkeypatch.setitem(CONTEXTS, "prototype", context)
    config = tiny_config(backbone="toy", context="prototype", strides=(16, 8))
    model, optimizer = experiment.make_model(config, 3), sgd()
    variables = initial_variables(model, 0)
    state = initial_state(variables, optimizer)
    step = make_train_step(
        model, optimizer, experiment.make_objective(config), mesh_lib.make_mesh(1, devices=jax.devices()[:1])
    )
    after, metrics = step(state, jax.tree.map(jnp.asarray, make_batch()))
    parts = float(metrics["semantic"] + metrics["unity"] + 0.4 * metrics["auxiliary"] + 3 * metrics["distance"])
    assert float(metrics["loss"]) == pytest.approx(parts, rel=1e-5)
    assert metrics["distance"] > 0
    assert not variables["batch_stats"]["context"]["memory"].any()
    assert np.asarray(after.batch_stats["context"]["memory"]).all()
    assert "memory" not in str(jax.tree_util.tree_structure(after.params))
    assert model.auxiliary_stage == 1


def call(mode, *arguments):
    assert main.main(["pyrseg", mode, *map(str, arguments)]) == 0


@pytest.mark.parametrize(
    ("strides", "context"), [((64, 32, 16, 8), "none"), ((8, 4), "coarse_to_fine")], ids=["stride 8", "upsampled to 4"]
)
def test_a_toy_backbone_trains_evaluates_predicts_and_is_exported(toy, tmp_path, strides, context):
    folder, run = write_folder(tmp_path / "data", {"training": 4, "validation": 2}, size=(64, 64)), tmp_path / "run"
    changes = {
        "model.backbone": "toy",
        "model.context": context,
        "model.strides": ",".join(map(str, strides)),
        "training.steps": 2,
        "training.log_every": 1,
        "training.evaluate_every": 2,
        "evaluation.num_pictures": 0,
        "evaluation.analysis": False,
        "data.workers": 0,
    }
    call(
        "train",
        "--config=scenes",
        *TINY,
        f"--config.data.root={folder}",
        *(f"--config.{key}={value}" for key, value in changes.items()),
        f"--workdir={run}",
    )
    losses = [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert len(losses) == 2 and np.isfinite(losses).all()
    after_training = json.loads((run / "evaluation" / "validation-2.json").read_text())
    assert len(after_training["level_share"]) == len(strides)

    call("evaluate", f"--workdir={run}")
    evaluated = json.loads((run / "evaluation" / "validation-2.json").read_text())
    assert evaluated["iou"] == after_training["iou"]

    # Neither side is a multiple of any stride.
    image, _ = draw_pair(np.random.default_rng(1), 75, 101)
    Image.fromarray(image).save(tmp_path / "photo.png")
    call("predict", f"--workdir={run}", f"--input={tmp_path / 'photo.png'}", f"--output={tmp_path / 'predicted'}")
    result = pyrseg_jax.load(run)(image)
    assert result.labels.shape == image.shape[:2]
    assert result.probs.shape[0] % (strides[0] // strides[-1]) == 0
    written = [np.asarray(Image.open(path)) for path in sorted((tmp_path / "predicted").glob("*.png"))]
    assert any(picture.shape == image.shape[:2] for picture in written)

    square = image[:64, :64]
    call("export", f"--workdir={run}", f"--output={tmp_path / 'model.zip'}", "--sizes=64x64")
    exported = pyrseg_jax.load(tmp_path / "model.zip")(square)
    np.testing.assert_array_equal(exported.labels, pyrseg_jax.load(run)(square).labels)
