"""The parts of an experiment, built from its configuration: what training, evaluation and prediction share."""

import os
from collections.abc import Callable
from pathlib import Path

import jax
import optax
from jax.sharding import Mesh

from pyrseg_jax.data.catalog import Dataset, open_dataset
from pyrseg_jax.data.label_mapping import OwnValues
from pyrseg_jax.distributed import mesh as mesh_lib
from pyrseg_jax.evaluation.views import Protocol, make_protocol
from pyrseg_jax.models.contexts import CONTEXTS
from pyrseg_jax.models.segmenter import Segmenter, build_segmenter
from pyrseg_jax.run.config import Config, Data, Model, Parallel
from pyrseg_jax.training.objective import PerPixelObjective, PyramidObjective, WithAuxiliary
from pyrseg_jax.training.optimizer import make_optimizer, poly_schedule


def open_data(data: Data, is_raw: bool = False) -> Dataset:
    """Open the data set, after preparing it where it is one that is prepared; `is_raw`: read its files themselves."""
    return open_dataset(
        data.name,
        data.root,
        data.prepared,
        holdout=data.holdout,
        holdout_seed=data.holdout_seed,
        own_values=OwnValues(data.first_value, data.void_value, data.remap),
        on_error=data.on_error,
        is_raw=is_raw,
    )


def make_mesh(chosen: Parallel) -> Mesh:
    """Arrange the devices."""
    return mesh_lib.make_mesh(chosen.data, chosen.spatial)


def make_model(model: Model, num_classes: int) -> Segmenter:
    """Build the network."""
    return build_segmenter(
        num_classes,
        backbone=model.backbone,
        context=model.context,
        representation=model.representation,
        strides=model.strides,
        semantic_width=model.semantic_width,
        key_width=model.key_width,
        unity_width=model.unity_width,
        resize=model.resize,
        dtype=model.dtype,
        remat=model.remat,
    )


def make_objective(config: Config) -> Callable:
    """Build what is minimised."""
    training = config.training
    if config.model.representation == "pyramid":
        objective = PyramidObjective(config.model.strides, training.procedure, training.threshold, training.void)
    else:
        min_kept = training.ohem_min_kept // training.accumulate  # of a whole batch; the objective sees micro-batches
        objective = PerPixelObjective(training.supervision, training.ohem_threshold, min_kept)
    if CONTEXTS[config.model.context].auxiliary is not None and training.auxiliary_weight:
        return WithAuxiliary(objective, training.auxiliary_weight, training.supervision)
    return objective


def make_schedule(config: Config) -> optax.Schedule:
    """Build step → learning rate of the backbone."""
    training = config.training
    return poly_schedule(training.learning_rate, training.steps, training.poly_power, training.warmup_steps)


def make_sgd(config: Config) -> optax.GradientTransformation:
    """Build the optimizer."""
    training = config.training
    return make_optimizer(
        make_schedule(config),
        momentum=training.momentum,
        weight_decay=training.weight_decay,
        head_multiplier=training.head_multiplier,
    )


def make_evaluation_protocol(config: Config) -> Protocol:
    """Build what says how images are shown to the network."""
    evaluation = config.evaluation
    return make_protocol(
        evaluation.protocol, evaluation.short_side_px, evaluation.long_side_px, config.model.strides[0]
    )


def describe_protocol(config: Config) -> dict:
    """Say how predictions were made, for whoever compares the numbers."""
    described = make_evaluation_protocol(config).describe()
    return described | {"threshold": config.evaluation.threshold}


def use_compilation_cache() -> None:
    """Keep compiled programs between runs, in `JAX_COMPILATION_CACHE_DIR` or below the user's cache folder."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "pyrseg_jax" / "xla"
    if not jax.config.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
