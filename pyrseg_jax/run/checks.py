"""Checks of values that must fit together, beyond what the schema says of each alone."""

import dataclasses

from pyrseg_jax.data.augmentation.user_function import check_name
from pyrseg_jax.data.holdout import Holdout
from pyrseg_jax.data.image_space import PHOTOGRAPH, make_image_space
from pyrseg_jax.errors import UserError
from pyrseg_jax.evaluation.views import PROTOCOLS
from pyrseg_jax.models.backbones import BACKBONES
from pyrseg_jax.models.contexts import CONTEXTS, ContextSettings
from pyrseg_jax.models.segmenter import make_backbone, make_context
from pyrseg_jax.models.strides import plan_strides
from pyrseg_jax.reporting.trackers import read_names
from pyrseg_jax.run.naming import naming
from pyrseg_jax.run.schema import Augment, Config, Data, Optimizer
from pyrseg_jax.storage.hub import is_address, parse_address
from pyrseg_jax.training.losses import LOSSES
from pyrseg_jax.training.profile import parse_steps

# The optimizers that read a key, for keys that not all of them read.
_READERS = {
    "beta1": ("adamw", "muon"),
    "beta2": ("adamw", "muon"),
    "epsilon": ("adamw", "muon"),
    "muon_momentum": ("muon",),
    "muon_steps": ("muon",),
    "muon_rms": ("muon",),
}


def check_together(config: Config) -> None:
    """Raise UserError, naming the keys, for values that do not fit together."""
    _check_sizes(config)
    holdout_of(config.data)
    _check_loss(config)
    _check_augmentation(config.augment)
    _check_images(config)
    _check_init(config)
    _check_trackers(config)
    _check_optimizer(config)
    _check_choice_of_best(config)
    data, training = config.data, config.training
    if data.scale_min > data.scale_max:
        raise UserError(f"config.data.scale_min={data.scale_min} is larger than config.data.scale_max={data.scale_max}")
    if training.batch_size % training.accumulate:
        raise UserError(
            f"config.training.batch_size={training.batch_size} cannot be split into "
            f"config.training.accumulate={training.accumulate} micro-batches: take a divisor of the batch size"
        )
    parse_steps(training.profile, "config.training.profile")
    if config.parallel.data == 0:
        raise UserError("config.parallel.data=0: expected a number of devices, or -1 for all")


def fill_strides(config: Config) -> Config:
    """Return the configuration with the strides of the levels that it stands for.

    Raises:
      UserError: naming the keys, if strides, backbone and context module do not fit together.
    """
    model = config.model
    try:
        strides, _ = plan_strides(model.strides or None, model.backbone, model.context, model.output_stride)
    except (ValueError, TypeError) as error:
        problem = str(error)
        raise UserError(f"config.model.{'' if problem.startswith('context=') else 'strides: '}{problem}") from error
    return dataclasses.replace(config, model=dataclasses.replace(model, strides=strides))


def _check_sizes(config: Config) -> None:
    """Check the options of backbone and context module, and that the crop divides into the pyramid's coarsest cells."""
    model, crop_px, coarsest = config.model, config.data.crop_px, config.model.strides[0]
    try:
        options = ("resize", "remat", "output_stride", "stem", "dilation", "multi_grid", "drop_path")
        make_backbone(model.backbone, model.context, **{option: getattr(model, option) for option in options})
        make_context(CONTEXTS[model.context], ContextSettings(2, len(model.strides), model.semantic_width))
    except ValueError as error:
        raise UserError(f"config.model.{error}") from error
    if crop_px % coarsest:
        near = max(coarsest, crop_px // coarsest * coarsest)
        raise UserError(
            f"config.data.crop_px={crop_px} is not divisible by the coarsest stride {coarsest}: "
            f"take {near} or {near + coarsest}"
        )


def _check_trackers(config: Config) -> None:
    """Check that the trackers exist; whether their libraries are installed is found out when a training starts."""
    try:
        read_names(config.training.trackers)
    except UserError as error:
        raise UserError(f"config.training.{error}") from error


def _check_init(config: Config) -> None:
    """Check that names are there, and the form of addresses of the hub; whether they exist is found out when a training starts."""
    if config.model.init is None:
        return
    names = config.model.init.split(",")
    if not all(name.strip() for name in names):
        raise UserError(
            f"config.model.init={config.model.init!r}: expected a run, a model, or files of weights with commas between them, or "
            "None for random weights"
        )
    for name in names:
        if is_address(name.strip()):
            try:
                parse_address(name.strip())
            except UserError as error:
                raise UserError(f"config.model.init: {error}") from error


def _check_loss(config: Config) -> None:
    """Check that there is something to learn from, and that no key is set that the representation does not read."""
    loss, training, is_pyramid = config.loss, config.training, config.model.representation == "pyramid"
    everywhere = [name for name, spec in LOSSES.items() if spec.is_on_all_levels]
    if not any(getattr(loss, name) for name in everywhere):
        raise UserError(
            f"config.loss.{everywhere[0]}={getattr(loss, everywhere[0])}: {' and '.join(everywhere[1:])} are 0, too, so that most "
            "positions are learned from by no loss: give one of them a positive weight"
        )
    for name, value, unset, is_read in (
        ("training.supervision", training.supervision, "finest", not is_pyramid),
        ("loss.unity", loss.unity, 1.0, is_pyramid),
        ("loss.unity_gamma", loss.unity_gamma, 0.0, is_pyramid),
    ):
        if value != unset and not is_read:
            raise UserError(f"config.{name}={value!r} {_DOES_NOT_APPLY[is_pyramid]}; leave it at {unset!r}")


# By whether there is a pyramid.
_DOES_NOT_APPLY = {
    True: "applies only to config.model.representation='per_pixel' or 'auxiliary': with a pyramid the relabeling decides what is "
    "learned",
    False: "applies only to config.model.representation='pyramid': without a pyramid there are no unity logits",
}


def _check_optimizer(config: Config) -> None:
    """Check that the keys of other optimizers and schedules are not set, and that the backbone has the order that they need."""
    optimizer, usual = config.optimizer, Optimizer()
    for name, readers in _READERS.items():
        value = getattr(optimizer, name)
        if optimizer.name not in readers and value != getattr(usual, name):
            raise UserError(
                f"config.optimizer.{name}={value!r} applies only to config.optimizer.name={' or '.join(map(repr, readers))}, and "
                f"this is {optimizer.name!r}: leave it at {getattr(usual, name)!r}"
            )
    for name in ("beta1", "beta2", "muon_momentum", "ema"):
        if getattr(optimizer, name) == 1:
            raise UserError(
                f"config.optimizer.{name}=1: expected less than 1, because an average with this decay never moves"
            )
    if optimizer.schedule == "constant" and optimizer.final_factor:
        raise UserError(
            f"config.optimizer.final_factor={optimizer.final_factor} does not apply to config.optimizer.schedule='constant', which "
            "ends at the peak: leave it at 0.0"
        )
    if optimizer.warmup_start is not None and optimizer.schedule != "one_cycle" and config.training.warmup_steps == 0:
        raise UserError(
            f"config.optimizer.warmup_start={optimizer.warmup_start} applies only to a warm-up: set config.training.warmup_steps"
        )
    if optimizer.layer_decay is not None and BACKBONES[config.model.backbone].depth_of is None:
        raise UserError(
            f"config.optimizer.layer_decay={optimizer.layer_decay}: the backbone {config.model.backbone!r} defines no order of its "
            "layers: leave it at None, or take a backbone that does"
        )


def _check_choice_of_best(config: Config) -> None:
    """Check that the evaluations have the score by which the best checkpoint is chosen."""
    protocol = config.evaluation.protocol
    if config.training.best_metric == "loss" and not config.evaluation.loss:
        raise UserError(
            "config.training.best_metric='loss' needs the validation loss: leave config.evaluation.loss at true"
        )
    if config.training.best_metric == "loss" and "window_px" in PROTOCOLS[protocol]:
        raise UserError(
            f"config.training.best_metric='loss': config.evaluation.protocol={protocol!r} cuts images into windows, and the loss "
            "is that of whole images: take another protocol or another score"
        )


@naming("data")
def holdout_of(data: Data) -> Holdout:
    """Return which images are held out; raise UserError, naming the keys, if these do not fit together."""
    return Holdout(data.holdout, data.holdout_seed, data.folds, data.fold)


@naming("augment")
def _check_augmentation(augment: Augment) -> None:
    """Check the range of qualities, and the form of the name of the user's function, which is not imported here."""
    if augment.jpeg_quality_min > augment.jpeg_quality_max:
        raise UserError(
            f"jpeg_quality_min={augment.jpeg_quality_min} is larger than jpeg_quality_max={augment.jpeg_quality_max}"
        )
    if augment.function is not None:
        check_name(augment.function)


@naming("data")
def _check_images(config: Config) -> None:
    """Check the keys of channels and values, and that no JPEG compression is asked for where there is none."""
    data = config.data
    space = make_image_space(data.channels, data.scaling, data.nodata)
    if space.channels == PHOTOGRAPH.channels and not space.is_scaled:
        return
    if value := config.augment.jpeg_probability:
        raise UserError(
            f"config.augment.jpeg_probability={value}: JPEG compression exists for RGB of 8 bits only, and the images have "
            f"{space.describe()}: set it to 0; color_jitter=, blur and noise work with any channels"
        )
