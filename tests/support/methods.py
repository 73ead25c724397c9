"""The methods of the paper's Table 1 as configurations, for tests."""

from typing import Any

import jax
import jax.numpy as jnp

from pyrseg_jax.distributed import mesh as mesh_lib
from pyrseg_jax.models.initial import abstract_variables
from pyrseg_jax.models.segmenter import Segmenter
from pyrseg_jax.run import config as config_lib
from pyrseg_jax.run import config_file, experiment
from pyrseg_jax.training.step import initial_state, make_train_step


def load(name: str, variant: str) -> config_lib.Config:
    """Return the configuration of a packaged config with these words, joined with commas."""
    return config_lib.resolve(config_file.load(config_file.find(f"{name}:{variant}")))


def make_shallow(config: config_lib.Config, num_classes: int) -> Segmenter:
    """Return the network of a configuration at its full width, an HRNet or a ResNet with few blocks: others have equal shapes."""
    model = experiment.make_model(config, num_classes)
    if config.model.backbone.startswith("resnet"):
        backbone = model.backbone.clone(num_blocks=(1, 1, 2, 3))
    elif not config.model.backbone.startswith("hrnet"):
        return model
    else:
        backbone = model.backbone.clone(num_modules=(1, 1, 1), num_blocks=1, num_bottlenecks=1)
    return model.clone(backbone=backbone)


def check_step(config: config_lib.Config, model: Segmenter, variables: Any) -> None:
    """Trace a training step of a whole batch and check shapes and types; nothing is computed or compiled."""
    optimizer = experiment.make_optimizer(config)
    step = make_train_step(model, optimizer, experiment.make_objective(config), mesh_lib.make_mesh(data=1))
    state = jax.eval_shape(lambda v: initial_state(v, optimizer), variables)
    n, side = config.training.batch_size, config.data.crop_px
    batch = {
        "image": jax.ShapeDtypeStruct((n, side, side, 3), jnp.uint8),
        "label": jax.ShapeDtypeStruct((n, side, side), jnp.uint8),
    }
    after, metrics = jax.eval_shape(step, state, batch)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(lambda x: (x.shape, x.dtype), state)
    assert metrics["loss"].shape == ()
    assert metrics["loss"].dtype == jnp.float32


def trace(config: config_lib.Config, num_classes: int = 11) -> tuple[Segmenter, Any]:
    """Check a training step of a configuration; return its network and the shapes of its variables."""
    config = config_lib.resolve_durations(config, num_training_images=16_210)
    model = make_shallow(config, num_classes)
    variables = abstract_variables(model)
    check_step(config, model, variables)
    return model, variables
