"""Configuration: from the `ConfigDict` of a config file and flags to frozen dataclasses, once, at the door.

The dataclasses below are the list of all keys, with their meaning and default; a config file changes what it needs of
`defaults()`. Nothing below `main` ever sees a `ConfigDict`.
"""

import dataclasses
import json

import ml_collections

from pyrseg_jax.data.catalog import ON_ERROR
from pyrseg_jax.errors import UserError
from pyrseg_jax.evaluation.views import PROTOCOLS
from pyrseg_jax.models.backbones import hrnet
from pyrseg_jax.models.blocks import REMATS
from pyrseg_jax.models.contexts.coarse_to_fine import CONTEXTS
from pyrseg_jax.models.resample import RESIZE_CONVENTIONS
from pyrseg_jax.models.segmenter import DTYPES, REPRESENTATIONS
from pyrseg_jax.pyramid import PROCEDURES, VOID_RULES
from pyrseg_jax.pyramid.levels import check_strides
from pyrseg_jax.run.keys import all_keys, at_least, key, one_of, read, to_config_dict, unknown_key
from pyrseg_jax.training.objective import SUPERVISIONS
from pyrseg_jax.training.profile import parse_steps


@dataclasses.dataclass(frozen=True)
class Data:
    """Which images, and how they are augmented."""

    name: str = key("scenes")  # a key of data.catalog.DATASETS
    root: str | None = key(None, free=True)  # folder with the user's files, for data sets that are read from files
    prepared: str | None = key(None, free=True)  # where prepared data sets are kept; None: TFDS's own place
    first_value: int = key(1, at_least(0))  # folder: value of the first line of classes.txt in label files
    void_value: int = key(0, {"minimum": 0, "maximum": 255})  # folder: value of pixels without a class
    remap: str = key("")  # folder: further values in label files, as "7:1,9:void"
    on_error: str = key(
        "stop", one_of(*ON_ERROR), free=True
    )  # a pair that cannot be used: end, or leave it out and count
    holdout: int = key(0, at_least(0))  # this many training images form the split "holdout" instead
    holdout_seed: int = key(0, at_least(0))  # which ones
    crop_px: int = key(512, at_least(1))  # height and width of a training image, a multiple of the coarsest stride
    scale_min: float = key(0.5, at_least(0.05))  # random scale, uniform between these two
    scale_max: float = key(2.0, at_least(0.05))
    is_flipped: bool = key(True)  # mirror half of the images
    color_jitter: float = key(0.0, at_least(0))  # brightness, contrast and saturation by 1 ± this
    workers: int = key(4, at_least(0), free=True)  # processes that read and augment; 0: threads of this process


@dataclasses.dataclass(frozen=True)
class Model:
    """The network. Widths as in the paper at W32 and W48."""

    backbone: str = key("hrnet_w48", one_of(*hrnet.BACKBONES))
    context: str = key("coarse_to_fine", one_of(*CONTEXTS))
    representation: str = key("pyramid", one_of(*REPRESENTATIONS))  # what is predicted: see models/segmenter.py
    strides: tuple[int, ...] = key((32, 16, 8, 4))  # of the pyramid's levels, coarse to fine
    semantic_width: int = key(512, at_least(1))  # D_s
    key_width: int = key(256, at_least(1))  # queries and keys of the attention
    unity_width: int = key(128, at_least(1))  # D_u
    resize: str = key("half_pixel", one_of(*RESIZE_CONVENTIONS))  # upsampling inside the backbone
    init: str | None = key(
        None
    )  # start from these weights: a file (docs/weights.md) or another run's folder; None: random
    # Compile equal blocks once and run them in a loop; on no device seen so far is that better (docs/performance.md).
    scan: str = key("off", one_of("on", "off"), free=True)
    # Compute activations inside of blocks again in the backward pass instead of keeping them: the cheap ones, or all.
    remat: str = key("off", one_of(*REMATS), free=True)
    dtype: str = key("bfloat16", one_of(*DTYPES))  # of the computation; parameters and loss are float32


@dataclasses.dataclass(frozen=True)
class Training:
    """The recipe."""

    batch_size: int = key(16, at_least(1))  # over all devices
    steps: int = key(150_000, at_least(1))
    learning_rate: float = key(0.02, at_least(0))
    head_multiplier: float = key(1.0, at_least(0))  # learning rate of all but the backbone, times this
    warmup_steps: int = key(0, at_least(0))  # linear, at the start
    poly_power: float = key(0.9, at_least(0))  # learning rate × (1 - step / steps) ^ this
    momentum: float = key(0.9, at_least(0))
    weight_decay: float = key(1e-4, at_least(0))  # on all parameters
    procedure: str = key("tp", one_of(*PROCEDURES))  # how targets are relabelled
    threshold: float = key(0.5, {"minimum": 0, "maximum": 1})  # τ while training
    void: str = key("agree", one_of(*VOID_RULES))  # what void pixels do to a cell
    # Without a pyramid: whether the loss is taken at the finest level's positions or at the label map's size.
    supervision: str = key("finest", one_of(*SUPERVISIONS))
    auxiliary_weight: float = key(0.4, at_least(0))  # of the loss of the classifier beside anl, ccnet and ocr
    # Without a pyramid: leave out pixels that are predicted right with this probability, but keep so many of a batch.
    ohem_threshold: float | None = key(None, {"minimum": 0, "maximum": 1})
    ohem_min_kept: int = key(0, at_least(0))
    # Take the batch as so many micro-batches, one after another: less memory; batch statistics are then of each of these.
    accumulate: int = key(1, at_least(1))
    log_every: int = key(50, at_least(1), free=True)  # steps between two lines of metrics.jsonl
    evaluate_every: int = key(10_000, at_least(1), free=True)
    save_every: int = key(1_000, at_least(1), free=True)
    stall_s: float = key(600.0, at_least(0), free=True)  # report a step that takes longer than this; 0: none
    profile: str | None = key(None, free=True)  # first and last step of a trace, as "10:15"
    keep_last: int = key(2, at_least(1), free=True)  # checkpoints kept beside the best one
    stop_after: int | None = key(None, at_least(1), free=True)  # end early, at this step, with all schedules unchanged


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """How predictions are made and scored; all but the split and the analysis hold for predict, too."""

    split: str = key("validation", free=True)
    protocol: str = key("single", one_of(*PROTOCOLS), free=True)  # sizes, scales, mirroring: evaluation/protocols.py
    batch_size: int = key(8, at_least(1), free=True)
    threshold: float = key(0.5, {"minimum": 0, "maximum": 1}, free=True)  # τ of the fuser
    # For the protocols single and multi_scale_flip, at scale 1; the published ones have sizes of their own.
    short_side_px: int | None = key(None, at_least(1), free=True)  # resize to this; None: leave the size
    long_side_px: int = key(2048, at_least(1), free=True)  # but no side longer than this
    analysis: bool = key(
        True, free=True
    )  # --mode=evaluate and the end of training: tables and figures about the pyramid
    num_pictures: int = key(4, at_least(0), free=True)  # pictures of the split drawn into figures/ after training


@dataclasses.dataclass(frozen=True)
class Parallel:
    """The mesh: which devices share the work, and how; see docs/scaling.md."""

    data: int = key(-1, at_least(-1), free=True)  # devices, or groups of them, that the batch is split over; -1: all
    spatial: int = key(1, at_least(1), free=True)  # devices that the rows of each training image are split over
    # Keep a part of the parameters and of the optimizer's state on each device instead of all of them.
    shard_state: bool = key(False, free=True)


@dataclasses.dataclass(frozen=True)
class Config:
    """One experiment."""

    seed: int = key(0, at_least(0))  # of the initial weights, the order of the images and their augmentation
    data: Data = Data()
    model: Model = Model()
    training: Training = Training()
    evaluation: Evaluation = Evaluation()
    parallel: Parallel = Parallel()


def defaults() -> ml_collections.ConfigDict:
    """Return every key with its default, for a config file to start from."""
    return to_config_dict(Config())


def resolve(config: ml_collections.ConfigDict) -> Config:
    """Read a `ConfigDict` into dataclasses.

    Raises:
      UserError: naming the key, for one that does not exist (with the nearest that does), a value of the wrong type or
        outside its range, or values that do not go together.
    """
    resolved = read(Config, config, "config")
    _check_together(resolved)
    return resolved


def to_json(config: Config) -> str:
    """Write the resolved configuration as JSON."""
    return json.dumps(dataclasses.asdict(config), indent=2) + "\n"


def from_json(text: str) -> Config:
    """Read what `to_json` wrote; raises UserError as `resolve` does."""
    values = json.loads(text)
    if values.get("model", {}).get("scan") == "auto":  # as runs have it that are older than 2026-11-25
        values["model"]["scan"] = "off"
    return resolve(ml_collections.ConfigDict(values))


def check_key(name: str) -> None:
    """Raise UserError if there is no key of this full name, like `config.data.rot`."""
    known = all_keys(Config, "config")
    if name not in known:
        raise unknown_key(name, known)


def _check_together(config: Config) -> None:
    data, model = config.data, config.model
    try:
        check_strides(model.strides)
    except (ValueError, TypeError) as error:
        raise UserError(f"config.model.strides: {error}") from error
    if model.strides[-1] != hrnet.OUTPUT_STRIDE:
        raise UserError(
            f"config.model.strides={model.strides}: the finest must be {hrnet.OUTPUT_STRIDE}, the backbone's stride"
        )
    coarsest = model.strides[0]
    if data.crop_px % coarsest:
        near = max(coarsest, data.crop_px // coarsest * coarsest)
        raise UserError(
            f"config.data.crop_px={data.crop_px} is not divisible by the coarsest stride {coarsest}: "
            f"take {near} or {near + coarsest}"
        )
    if model.representation == "pyramid":
        for key, unset in (("ohem_threshold", None), ("supervision", "finest")):
            if getattr(config.training, key) != unset:
                raise UserError(
                    f"config.training.{key}={getattr(config.training, key)!r} is for config.model.representation='per_pixel' "
                    f"or 'auxiliary': with a pyramid it is the relabelling that decides what is learned; leave it at {unset!r}"
                )
    if data.scale_min > data.scale_max:
        raise UserError(f"config.data.scale_min={data.scale_min} is larger than config.data.scale_max={data.scale_max}")
    if config.training.batch_size % config.training.accumulate:
        raise UserError(
            f"config.training.batch_size={config.training.batch_size} cannot be taken as "
            f"config.training.accumulate={config.training.accumulate} micro-batches: take a divisor of the batch size"
        )
    parse_steps(config.training.profile)
    if config.parallel.data == 0:
        raise UserError("config.parallel.data=0: expected a number of devices, or -1 for all")
