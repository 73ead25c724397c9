"""The parts of an experiment, built from its configuration: from keys to objects.

The packages below this one take plain arguments, and name them in their errors. `naming` completes these names to keys.
"""

import logging
from collections.abc import Callable, Sequence

import jax
import optax
from jax.sharding import Mesh

from pyrseg_jax.data.catalog import TRAINING, Dataset, open_dataset
from pyrseg_jax.data.image_space import ImageSpace
from pyrseg_jax.data.label_mapping import LabelMapping
from pyrseg_jax.data.pipeline import TrainingBatches, training_batches
from pyrseg_jax.data.rare_sampling import RareSampling
from pyrseg_jax.data.training_report import training_report
from pyrseg_jax.distributed import mesh as mesh_lib
from pyrseg_jax.models.contexts import CONTEXTS
from pyrseg_jax.models.segmenter import Segmenter
from pyrseg_jax.run.augmentation import make_augmentation
from pyrseg_jax.run.compilation_cache import use_compilation_cache as use_compilation_cache
from pyrseg_jax.run.config import Config, Data, Parallel
from pyrseg_jax.run.image_space import declared_image_space
from pyrseg_jax.run.naming import naming
from pyrseg_jax.run.networks import describe_protocol as describe_protocol
from pyrseg_jax.run.networks import make_evaluation_protocol as make_evaluation_protocol
from pyrseg_jax.run.networks import make_model as make_model
from pyrseg_jax.run.optimization import check_frozen as check_frozen
from pyrseg_jax.run.optimization import make_learning_rate as make_learning_rate
from pyrseg_jax.run.optimization import make_optimizer as make_optimizer
from pyrseg_jax.run.optimization import make_step_options as make_step_options
from pyrseg_jax.training.losses import LossSettings, SemanticLosses
from pyrseg_jax.training.objective import PerPixelObjective, PyramidObjective, WithAuxiliary, WithContextLosses
from pyrseg_jax.training.step import TrainState, make_train_step
from pyrseg_jax.training.trainer import Schedule

log = logging.getLogger(__name__)


@naming("data")
def open_data(data: Data, is_raw: bool = False, image_space: ImageSpace | None = None) -> Dataset:
    """Open the data set; prepare it first if it needs that and is not prepared yet.

    Args:
      data: the keys of the data set.
      is_raw: whether to read the original files instead of the prepared ones.
      image_space: what the values in its images mean, where a run knows it; None: what the keys say.

    Raises:
      UserError: naming the key, as `open_dataset` does. Splits and batches raise theirs later, when they are read: commands
        complete those with `naming("data")`.
    """
    return open_dataset(
        data.name,
        data.root,
        data.prepared,
        holdout=data.holdout,
        holdout_seed=data.holdout_seed,
        folds=data.folds,
        fold=data.fold,
        label_mapping=LabelMapping(data.first_value, data.void_value, data.remap),
        image_space=declared_image_space(data) if image_space is None else image_space,
        on_error=data.on_error,
        is_raw=is_raw,
    )


def open_batches(config: Config, dataset: Dataset, first_step: int) -> TrainingBatches:
    """Open this process's share of the training batches, beginning after `first_step` steps."""
    data, rare_sampling = config.data, None
    if data.rare_sampling:
        report = training_report(dataset, has_contents=True)
        rare_sampling = RareSampling.of(report, data.rare_sampling, data.rare_temperature)
    return training_batches(
        dataset.open_split(TRAINING),
        dataset.label_space,
        make_augmentation(config, dataset.label_space.num_classes),
        batch_size=config.training.batch_size,
        seed=config.seed,
        first_step=first_step,
        workers=data.workers,
        process_index=jax.process_index(),
        num_processes=jax.process_count(),
        on_error=data.on_error,
        rare_sampling=rare_sampling,
    )


def make_mesh(parallel: Parallel, devices: Sequence | None = None) -> Mesh:
    """Arrange the devices in a mesh; `devices`: instead of those of this run."""
    with naming("parallel"):
        return mesh_lib.make_mesh(parallel.data, parallel.spatial, devices)


def check_layout(config: Config, mesh: Mesh) -> None:
    """Raise UserError, naming the key, if the mesh cannot split the training batch or the rows of its images."""
    with naming("training"):
        mesh_lib.check_batch(mesh, config.training.batch_size, config.training.accumulate)
    check_rows(config, mesh)


def check_rows(config: Config, mesh: Mesh) -> None:
    """Raise UserError, naming the key, if the mesh cannot split the rows of training images."""
    with naming("data", "parallel"):
        mesh_lib.check_rows(mesh, config.data.crop_px, config.model.strides[0])


def make_objective(config: Config, class_weights: tuple[float, ...] | None = None) -> Callable:
    """Build the training objective.

    Args:
      config: the run's configuration.
      class_weights: the numbers that `config.loss.class_weights` stands for, as `class_weights.find_class_weights` returns them.
    """
    training, loss = config.training, config.loss
    settings = LossSettings(class_weights, loss.label_smoothing, loss.focal_gamma, loss.boundary_px)
    weights = {
        "cross_entropy": loss.cross_entropy,
        "focal": loss.focal,
        "dice": loss.dice,
        "lovasz": loss.lovasz,
        "boundary": loss.boundary,
    }
    losses = SemanticLosses(weights, settings)
    # The key counts the whole batch, and the objective sees micro-batches.
    ohem = {"ohem_threshold": training.ohem_threshold, "ohem_min_kept": training.ohem_min_kept // training.accumulate}
    if config.model.representation == "pyramid":
        rules = training.procedure, training.threshold, training.void
        objective = PyramidObjective(config.model.strides, *rules, losses, loss.unity, loss.unity_gamma, **ohem)
    else:
        objective = PerPixelObjective(training.supervision, losses=losses, **ohem)
    context = CONTEXTS[config.model.context]
    if context.has_auxiliary and training.auxiliary_weight:
        objective = WithAuxiliary(objective, training.auxiliary_weight, training.supervision)
    return WithContextLosses(objective, context.losses, training.supervision) if context.losses else objective


def make_step(
    config: Config,
    model: Segmenter,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    state: TrainState,
    class_weights: tuple[float, ...] | None = None,
) -> jax.stages.Wrapped:
    """Build the jitted training step; `state` may consist of shapes alone; `class_weights` as for `make_objective`."""
    return make_train_step(
        model,
        optimizer,
        make_objective(config, class_weights),
        mesh,
        config.seed,
        accumulate=config.training.accumulate,
        options=make_step_options(config),
        state_sharding=mesh_lib.state_sharding(mesh, state, config.parallel.shard_state),
    )


def make_schedule(config: Config) -> Schedule:
    """Build the schedule of logging, evaluating and saving."""
    training = config.training
    last_step = min(training.steps, training.stop_after or training.steps)
    return Schedule(last_step, training.batch_size, training.log_every, training.evaluate_every, training.save_every)
