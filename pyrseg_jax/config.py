"""Configuration: from the `ConfigDict` of a config file and flags to frozen dataclasses, once, at the door.

The dataclasses below are the list of all keys, with their meaning and default; a config file changes what it needs of
`defaults()`. Nothing below `main` ever sees a `ConfigDict`.
"""

import dataclasses
import difflib
import json
import types
import typing
from typing import Any

import ml_collections

from pyrseg_jax.data.catalog import ON_ERROR
from pyrseg_jax.errors import UserError
from pyrseg_jax.evaluation.protocols import PROTOCOLS
from pyrseg_jax.models import hrnet
from pyrseg_jax.models.contexts import CONTEXTS
from pyrseg_jax.models.layers import RESIZE_CONVENTIONS
from pyrseg_jax.models.segmenter import DTYPES, REPRESENTATIONS
from pyrseg_jax.pyramid import PROCEDURES, VOID_RULES
from pyrseg_jax.pyramid.levels import check_strides
from pyrseg_jax.training.objective import SUPERVISIONS


def _one_of(*choices: str):
    return {"choices": choices}


def _at_least(minimum: float):
    return {"minimum": minimum}


def _key(default: Any, check: dict | None = None, *, free: bool = False):
    """Declare a key; `free` ones may differ between the parts of one run (they change no number that it computes)."""
    return dataclasses.field(default=default, metadata={**(check or {}), "free": free})


@dataclasses.dataclass(frozen=True)
class Data:
    """Which images, and how they are augmented."""

    name: str = _key("scenes")  # a key of data.catalog.DATASETS
    root: str | None = _key(None, free=True)  # folder with the user's files, for data sets that are read from files
    prepared: str | None = _key(None, free=True)  # where prepared data sets are kept; None: TFDS's own place
    first_value: int = _key(1, _at_least(0))  # folder: value of the first line of classes.txt in label files
    void_value: int = _key(0, {"minimum": 0, "maximum": 255})  # folder: value of pixels without a class
    remap: str = _key("")  # folder: further values in label files, as "7:1,9:void"
    on_error: str = _key(
        "stop", _one_of(*ON_ERROR), free=True
    )  # a pair that cannot be used: end, or leave it out and count
    holdout: int = _key(0, _at_least(0))  # this many training images form the split "holdout" instead
    holdout_seed: int = _key(0, _at_least(0))  # which ones
    crop_px: int = _key(512, _at_least(1))  # height and width of a training image, a multiple of the coarsest stride
    scale_min: float = _key(0.5, _at_least(0.05))  # random scale, uniform between these two
    scale_max: float = _key(2.0, _at_least(0.05))
    is_flipped: bool = _key(True)  # mirror half of the images
    color_jitter: float = _key(0.0, _at_least(0))  # brightness, contrast and saturation by 1 ± this
    workers: int = _key(4, _at_least(0), free=True)  # processes that read and augment; 0: threads of this process


@dataclasses.dataclass(frozen=True)
class Model:
    """The network. Widths as in the paper at W32 and W48."""

    backbone: str = _key("hrnet_w48", _one_of(*hrnet.BACKBONES))
    context: str = _key("coarse_to_fine", _one_of(*CONTEXTS))
    representation: str = _key("pyramid", _one_of(*REPRESENTATIONS))  # what is predicted: see models/segmenter.py
    strides: tuple[int, ...] = _key((32, 16, 8, 4))  # of the pyramid's levels, coarse to fine
    semantic_width: int = _key(512, _at_least(1))  # D_s
    key_width: int = _key(256, _at_least(1))  # queries and keys of the attention
    unity_width: int = _key(128, _at_least(1))  # D_u
    resize: str = _key("half_pixel", _one_of(*RESIZE_CONVENTIONS))  # upsampling inside the backbone
    init: str | None = _key(
        None
    )  # start from these weights: a file (docs/weights.md) or another run's folder; None: random
    dtype: str = _key("bfloat16", _one_of(*DTYPES))  # of the computation; parameters and loss are float32


@dataclasses.dataclass(frozen=True)
class Training:
    """The recipe."""

    batch_size: int = _key(16, _at_least(1))  # over all devices
    steps: int = _key(150_000, _at_least(1))
    learning_rate: float = _key(0.02, _at_least(0))
    head_multiplier: float = _key(1.0, _at_least(0))  # learning rate of all but the backbone, times this
    warmup_steps: int = _key(0, _at_least(0))  # linear, at the start
    poly_power: float = _key(0.9, _at_least(0))  # learning rate × (1 - step / steps) ^ this
    momentum: float = _key(0.9, _at_least(0))
    weight_decay: float = _key(1e-4, _at_least(0))  # on all parameters
    procedure: str = _key("tp", _one_of(*PROCEDURES))  # how targets are relabelled
    threshold: float = _key(0.5, {"minimum": 0, "maximum": 1})  # τ while training
    void: str = _key("agree", _one_of(*VOID_RULES))  # what void pixels do to a cell
    # Without a pyramid: whether the loss is taken at the finest level's positions or at the label map's size.
    supervision: str = _key("finest", _one_of(*SUPERVISIONS))
    auxiliary_weight: float = _key(0.4, _at_least(0))  # of the loss of the classifier beside anl, ccnet and ocr
    # Without a pyramid: leave out pixels that are predicted right with this probability, but keep so many of a batch.
    ohem_threshold: float | None = _key(None, {"minimum": 0, "maximum": 1})
    ohem_min_kept: int = _key(0, _at_least(0))
    log_every: int = _key(50, _at_least(1), free=True)  # steps between two lines of metrics.jsonl
    evaluate_every: int = _key(10_000, _at_least(1), free=True)
    save_every: int = _key(1_000, _at_least(1), free=True)
    keep_last: int = _key(2, _at_least(1), free=True)  # checkpoints kept beside the best one
    stop_after: int | None = _key(
        None, _at_least(1), free=True
    )  # end early, at this step, with all schedules unchanged


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """How predictions are made and scored; all but the split and the analysis hold for predict, too."""

    split: str = _key("validation", free=True)
    protocol: str = _key("single", _one_of(*PROTOCOLS), free=True)  # sizes, scales, mirroring: evaluation/protocols.py
    batch_size: int = _key(8, _at_least(1), free=True)
    threshold: float = _key(0.5, {"minimum": 0, "maximum": 1}, free=True)  # τ of the fuser
    # For the protocols single and multi_scale_flip, at scale 1; the published ones have sizes of their own.
    short_side_px: int | None = _key(None, _at_least(1), free=True)  # resize to this; None: leave the size
    long_side_px: int = _key(2048, _at_least(1), free=True)  # but no side longer than this
    analysis: bool = _key(
        True, free=True
    )  # --mode=evaluate and the end of training: tables and figures about the pyramid
    num_pictures: int = _key(4, _at_least(0), free=True)  # pictures of the split drawn into figures/ after training


@dataclasses.dataclass(frozen=True)
class Parallel:
    """The mesh: which devices share the work, and how."""

    data: int = _key(-1, _at_least(-1), free=True)  # devices that the batch is split over; -1: all


@dataclasses.dataclass(frozen=True)
class Config:
    """One experiment."""

    seed: int = _key(0, _at_least(0))  # of the initial weights, the order of the images and their augmentation
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
    resolved = _read(Config, config, "config")
    _check_together(resolved)
    return resolved


def to_json(config: Config) -> str:
    """Write the resolved configuration as JSON."""
    return json.dumps(dataclasses.asdict(config), indent=2) + "\n"


def from_json(text: str) -> Config:
    """Read what `to_json` wrote; raises UserError as `resolve` does."""
    return resolve(ml_collections.ConfigDict(json.loads(text)))


def differences(old: Any, new: Any, prefix: str = "config") -> list[str]:
    """List as `key: old → new` where two configurations, or groups of keys, differ; free keys do not count."""
    found = []
    for field in dataclasses.fields(old):
        before, after = getattr(old, field.name), getattr(new, field.name)
        name = f"{prefix}.{field.name}"
        if dataclasses.is_dataclass(before):
            found += differences(before, after, name)
        elif before != after and not field.metadata["free"]:
            found.append(f"{name}: {before!r} → {after!r}")
    return found


def to_config_dict(values: Any) -> ml_collections.ConfigDict:
    """Turn dataclasses back into the `ConfigDict` that flags can change."""
    result = ml_collections.ConfigDict()
    types_of = typing.get_type_hints(type(values))
    for field in dataclasses.fields(values):
        value = getattr(values, field.name)
        if dataclasses.is_dataclass(value):
            value = to_config_dict(value)
        elif value is None:  # so that a flag knows what type to read
            value = ml_collections.config_dict.placeholder(_plain_type(types_of[field.name]))
        result[field.name] = value
    return result


def _read(cls: type, values: Any, prefix: str) -> Any:
    if not hasattr(values, "keys"):
        raise UserError(
            f"{prefix}={values!r}: expected a group of keys: {', '.join(f.name for f in dataclasses.fields(cls))}"
        )
    fields = {field.name: field for field in dataclasses.fields(cls)}
    types_of = typing.get_type_hints(cls)
    for name in values:
        if name not in fields:
            raise UserError(describe_unknown_key(f"{prefix}.{name}"))
    read = {}
    for name, field in fields.items():
        if name in values:
            kind = types_of[name]
            is_group = dataclasses.is_dataclass(kind)
            read[name] = (
                _read(kind, values[name], f"{prefix}.{name}")
                if is_group
                else _check(f"{prefix}.{name}", values[name], kind, field.metadata)
            )
    return cls(**read)


def check_key(name: str) -> None:
    """Raise UserError if there is no key of this full name, like `config.data.rot`."""
    if name not in _all_keys(Config, "config"):
        raise UserError(describe_unknown_key(name))


def describe_unknown_key(name: str) -> str:
    """Word the error for a key like `config.data.rot` that does not exist, with the nearest one that does."""
    known = _all_keys(Config, "config")
    near = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {near[0]}?" if near else "pyrseg_jax/config.py lists all keys"
    return f"{name} is not a configuration key: {hint}"


def _all_keys(cls: type, prefix: str) -> list[str]:
    keys = []
    for name, kind in typing.get_type_hints(cls).items():
        keys.append(f"{prefix}.{name}")
        if dataclasses.is_dataclass(kind):
            keys += _all_keys(kind, f"{prefix}.{name}")
    return keys


def _plain_type(kind: Any) -> type:
    if isinstance(kind, types.UnionType):
        kind = next(k for k in typing.get_args(kind) if k is not type(None))
    return typing.get_origin(kind) or kind


def _check(name: str, value: Any, kind: Any, check: typing.Mapping[str, Any]) -> Any:
    if value is None:
        if isinstance(kind, types.UnionType):
            return None
        raise UserError(f"{name} is not set: expected {_plain_type(kind).__name__}")
    plain = _plain_type(kind)
    if plain is tuple and isinstance(value, list | tuple):
        value = tuple(value)
    if plain is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, plain) or (plain is int and isinstance(value, bool)):
        raise UserError(f"{name}={value!r}: expected {plain.__name__}, found {type(value).__name__}")
    if value not in check.get("choices", (value,)):
        raise UserError(f"{name}={value!r}: expected one of {', '.join(check['choices'])}")
    # Written so that NaN, which compares as false, is refused, too.
    if "minimum" in check and not value >= check["minimum"]:
        raise UserError(f"{name}={value!r}: expected at least {check['minimum']}")
    if "maximum" in check and not value <= check["maximum"]:
        raise UserError(f"{name}={value!r}: expected at most {check['maximum']}")
    return value


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
    if config.parallel.data == 0:
        raise UserError("config.parallel.data=0: expected a number of devices, or -1 for all")
