"""All configuration keys, with meaning, unit, range and default: the one list that everything else is made from.

Config files and flags are read through these classes. `pyrseg help KEY`, `docs/reference/config.md` and
`docs/reference/config.schema.json` are written from them (`python -m pyrseg_jax.run.reference`).
"""

from typing import Annotated

from pydantic import Field, StrictInt

from pyrseg_jax.run import choices
from pyrseg_jax.run.declare import OneOf, duration, group, key
from pyrseg_jax.run.durations import Duration

MAX_SEED = 2**32 - 1  # JAX takes 32 bits


@group
class Data:
    """Which images a run learns from, and how it augments them."""

    name: Annotated[str, OneOf(choices.datasets)] = key("scenes", "Name of the data set.")
    root: str | None = key(
        None,
        "Folder or archive with your copy of the data set's files. None downloads or renders a data set that can be.",
        resumable=True,
    )
    prepared: str | None = key(
        None, "Folder that keeps prepared data sets. None is TFDS's default, ~/tensorflow_datasets.", resumable=True
    )
    first_value: int = key(
        1, "For `folder`: the value of the first line of classes.txt in the label files.", at_least=0
    )
    void_value: int = key(
        0, "For `folder`: the value of pixels without a class in the label files.", at_least=0, at_most=255
    )
    remap: str = key("", "For `folder`: what further values in the label files mean, for example `7:1,9:void`.")
    on_error: Annotated[str, OneOf(choices.actions_on_error)] = key(
        "stop", "What to do about an image or label that cannot be used: stop, or skip it and count it.", resumable=True
    )
    holdout: int = key(0, "Number of training images that form the split `holdout` instead.", unit="images", at_least=0)
    holdout_seed: int = key(0, "Seed of the random choice of the held-out images.", at_least=0, at_most=MAX_SEED)
    crop_px: int = key(
        512,
        "Height and width of the crops to train on. It must be a multiple of the pyramid's coarsest stride.",
        unit="px",
        at_least=1,
    )
    scale_min: float = key(
        0.5, "Smallest random scale of a training image. Scales are uniform up to `data.scale_max`.", at_least=0.05
    )
    scale_max: float = key(2.0, "Largest random scale of a training image.", at_least=0.05)
    is_flipped: bool = key(True, "Mirror half of the training images.")
    color_jitter: float = key(
        0.0, "Multiply brightness, contrast and saturation by random factors of 1 ± this value.", at_least=0
    )
    workers: int = key(
        4,
        "Processes that read and augment images. 0 uses threads of the training process.",
        unit="processes",
        at_least=0,
        resumable=True,
    )


@group
class Model:
    """The network. The default widths are the paper's for HRNet-W32 and HRNet-W48."""

    backbone: Annotated[str, OneOf(choices.backbones)] = key("hrnet_w48", "Backbone, which computes the features.")
    context: Annotated[str, OneOf(choices.contexts)] = key(
        "coarse_to_fine", "Context module between backbone and heads (Sec. 3.3)."
    )
    representation: Annotated[str, OneOf(choices.representations)] = key(
        "pyramid",
        "What the network predicts: the paper's pyramid, or one class per pixel without or with coarser levels.",
    )
    strides: tuple[StrictInt, ...] = key(
        (32, 16, 8, 4), "Strides of the pyramid's levels, coarse to fine. Each is twice the next.", unit="px"
    )
    semantic_width: int = key(512, "Channels of the semantic features, D_s.", unit="channels", at_least=1)
    key_width: int = key(256, "Channels of the attention's queries and keys.", unit="channels", at_least=1)
    unity_width: int = key(128, "Channels of the unity features, D_u.", unit="channels", at_least=1)
    resize: Annotated[str, OneOf(choices.resize_conventions)] = key(
        "half_pixel", "Convention of the bilinear upsampling inside the backbone."
    )
    init: str | None = key(
        None, "Weights to start from: a file of published weights, or the folder of another run. None draws at random."
    )
    remat: Annotated[str, OneOf(choices.remats)] = key(
        "off",
        "Compute activations again in the backward pass to save memory: none, only the cheap ones, or all.",
        resumable=True,
    )
    dtype: Annotated[str, OneOf(choices.dtypes)] = key(
        "bfloat16", "Number format of the computation. Parameters and loss are always float32."
    )


@group
class Training:
    """The training recipe."""

    batch_size: int = key(16, "Images in a batch, over all devices.", unit="images", at_least=1)
    steps: Annotated[int, Duration(at_least=1)] = duration(150_000, "Length of the training.")
    learning_rate: float = key(0.02, "Peak learning rate of the backbone.", at_least=0)
    head_multiplier: float = key(1.0, "Learning rate of everything but the backbone, as a multiple of its.", at_least=0)
    warmup_steps: Annotated[int, Duration(at_least=0)] = duration(
        0, "Length of the linear warm-up at the start of training."
    )
    poly_power: float = key(0.9, "Exponent p of the schedule learning_rate · (1 − step / steps)^p.", at_least=0)
    momentum: float = key(0.9, "Momentum of SGD.", at_least=0)
    weight_decay: float = key(1e-4, "Weight decay (L2) on all parameters.", at_least=0)
    procedure: Annotated[str, OneOf(choices.procedures)] = key(
        "tp", "How the targets of a pyramid are relabeled: by the prediction, by the ground truth, or not (Sec. 3.1)."
    )
    threshold: float = key(
        0.5, "Unity probability τ above which training takes a cell as predicted unit-cell.", at_least=0, at_most=1
    )
    void: Annotated[str, OneOf(choices.void_rules)] = key("agree", "How void pixels affect the unity of a cell.")
    supervision: Annotated[str, OneOf(choices.supervisions)] = key(
        "finest", "Without a pyramid: compare with the truth at the finest stride, or at the label map's full size."
    )
    auxiliary_weight: float = key(
        0.4, "Weight of the auxiliary classifier's loss, for context modules that have one.", at_least=0
    )
    ohem_threshold: float | None = key(
        None,
        "Without a pyramid: ignore pixels whose true class has at least this probability. None uses all pixels.",
        at_least=0,
        at_most=1,
    )
    ohem_min_kept: int = key(
        0, "Pixels of a batch that are always used, however well they are predicted.", unit="pixels", at_least=0
    )
    accumulate: int = key(
        1,
        "Micro-batches that a batch is split into, one after another, to save memory. Batch statistics are those of a "
        "micro-batch.",
        unit="micro-batches",
        at_least=1,
    )
    log_every: Annotated[int, Duration(at_least=1)] = duration(
        50, "Interval between two lines of metrics.jsonl.", resumable=True
    )
    evaluate_every: Annotated[int, Duration(at_least=1)] = duration(
        10_000, "Interval between two evaluations.", resumable=True
    )
    save_every: Annotated[int, Duration(at_least=1)] = duration(
        1_000, "Interval between two checkpoints.", resumable=True
    )
    stall_s: float = key(
        600.0,
        "Report where all threads stand when a step takes longer than this. 0 switches the reports off.",
        unit="s",
        at_least=0,
        resumable=True,
    )
    profile: str | None = key(
        None, "First and last step of a profiler trace, for example `10:15`. None takes none.", resumable=True
    )
    keep_last: int = key(
        2, "Newest checkpoints to keep, beside the best one.", unit="checkpoints", at_least=1, resumable=True
    )
    stop_after: Annotated[int | None, Duration(at_least=1, can_be_none=True)] = duration(
        None, "End early, at this step, with all schedules as they are. None trains to the end.", resumable=True
    )


@group
class Evaluation:
    """How predictions are made and scored. All keys but the split and the analysis also hold for `predict`."""

    split: str = key(
        "validation", "Split to score: `validation`, `training`, `holdout` or another of the data set.", resumable=True
    )
    protocol: Annotated[str, OneOf(choices.protocols)] = key(
        "single", "Evaluation protocol: the sizes, scales, windows and mirroring of the views.", resumable=True
    )
    batch_size: int = key(8, "Images in an evaluation batch.", unit="images", at_least=1, resumable=True)
    threshold: float = key(
        0.5,
        "Unity probability τ above which a cell decides its region when levels are fused.",
        at_least=0,
        at_most=1,
        resumable=True,
    )
    short_side_px: int | None = key(
        None,
        "Resize images to this short side, for the protocols `single` and `multi_scale_flip`. None keeps their size.",
        unit="px",
        at_least=1,
        resumable=True,
    )
    long_side_px: int = key(
        2048, "Limit of the long side, for the same protocols.", unit="px", at_least=1, resumable=True
    )
    analysis: bool = key(
        True, "Write tables and figures about the pyramid, after `evaluate` and at the end of training.", resumable=True
    )
    num_pictures: int = key(
        4, "Images of the split to draw predictions for, after training.", unit="images", at_least=0, resumable=True
    )


@group
class Parallel:
    """How the devices share the work (docs/guide/scaling.md)."""

    data: int = key(
        -1,
        "Devices, or groups of devices, that split the batch. -1 takes all.",
        unit="devices",
        at_least=-1,
        resumable=True,
    )
    spatial: int = key(
        1, "Devices that split the rows of each training image.", unit="devices", at_least=1, resumable=True
    )
    shard_state: bool = key(
        False, "Keep only a part of the parameters and of the optimizer's state on each device.", resumable=True
    )


@group
class Config:
    """One experiment.

    Attributes:
      said: what the configuration said of durations that are steps by now, for example
        `{"training.steps": "120 epochs"}`. It is a record and not a key.
    """

    seed: int = key(
        0,
        "Seed of the initial weights, of the order of the images, and of their augmentation.",
        at_least=0,
        at_most=MAX_SEED,
    )
    data: Data = Data()
    model: Model = Model()
    training: Training = Training()
    evaluation: Evaluation = Evaluation()
    parallel: Parallel = Parallel()
    said: dict[str, str] = Field(default_factory=dict)
