"""How an experiment descends the gradient, built from its configuration: schedule, optimizer, and options of the step."""

import optax

from pyrseg_jax.models.backbones import BACKBONES
from pyrseg_jax.models.contexts import CONTEXTS
from pyrseg_jax.models.initial import abstract_variables
from pyrseg_jax.models.segmenter import Segmenter
from pyrseg_jax.run.config import Config
from pyrseg_jax.run.naming import naming
from pyrseg_jax.training import optimizer as optimizers
from pyrseg_jax.training import schedules
from pyrseg_jax.training.freezing import check_patterns, read_patterns
from pyrseg_jax.training.optimizer import OptimizerSettings
from pyrseg_jax.training.step import StepOptions


def make_learning_rate(config: Config) -> optax.Schedule:
    """Build the schedule step → learning rate of the backbone."""
    training, optimizer = config.training, config.optimizer
    return schedules.make_schedule(
        optimizer.schedule,
        training.learning_rate,
        training.steps,
        power=training.poly_power,
        warmup_steps=training.warmup_steps,
        warmup_start=optimizer.warmup_start,
        final_factor=optimizer.final_factor,
    )


def make_optimizer(config: Config) -> optax.GradientTransformation:
    """Build the optimizer."""
    training, optimizer = config.training, config.optimizer
    settings = OptimizerSettings(
        name=optimizer.name,
        momentum=training.momentum,
        nesterov=optimizer.nesterov,
        beta1=optimizer.beta1,
        beta2=optimizer.beta2,
        epsilon=optimizer.epsilon,
        muon_momentum=optimizer.muon_momentum,
        muon_steps=optimizer.muon_steps,
        muon_rms=optimizer.muon_rms,
        weight_decay=training.weight_decay,
        decay_mask=optimizer.decay_mask,
        head_multiplier=training.head_multiplier,
        layer_decay=optimizer.layer_decay,
        depth_of=BACKBONES[config.model.backbone].depth_of,
        frozen=(*CONTEXTS[config.model.context].frozen, *read_patterns(optimizer.freeze)),
    )
    return optimizers.make_optimizer(make_learning_rate(config), settings)


def make_step_options(config: Config) -> StepOptions:
    """Build the options of the training step, which also decide the parts of the state."""
    optimizer = config.optimizer
    return StepOptions(optimizer.clip_norm or None, optimizer.ema, read_patterns(optimizer.freeze))


def check_frozen(config: Config, model: Segmenter) -> None:
    """Raise UserError, naming the key, if a pattern of frozen parameters matches none, or if they match all."""
    patterns = read_patterns(config.optimizer.freeze)
    if patterns:
        with naming("optimizer"):
            check_patterns(patterns, abstract_variables(model, 2 * config.model.strides[0])["params"])
