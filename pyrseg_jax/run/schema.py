"""All configuration keys, each with its meaning, unit, range and default.

These classes check the values of config files and flags. `pyrseg help KEY`, `docs/reference/config.md` and
`docs/reference/config.schema.json` are generated from them (`python -m pyrseg_jax.run.reference`).
"""

from typing import Annotated

from pydantic import Field, StrictInt

from pyrseg_jax.run import choices
from pyrseg_jax.run.declare import OneOf, duration, group, key
from pyrseg_jax.run.durations import Duration

MAX_SEED = 2**32 - 1  # JAX takes 32 bits


@group
class Data:
    """The data set, and how its images are augmented."""

    name: Annotated[str, OneOf(choices.datasets)] = key("scenes", "Name of the data set.")
    root: str | None = key(
        None,
        "Folder or archive with your copy of the data set's files. With None, the data set is downloaded or rendered; "
        "`folder` needs a path.",
        resumable=True,
    )
    prepared: str | None = key(
        None,
        "Folder for prepared data sets. None uses the default of TensorFlow Datasets, ~/tensorflow_datasets.",
        resumable=True,
    )
    first_value: int = key(
        1, "For `folder`: the value in the label files that stands for the first line of classes.txt.", at_least=0
    )
    void_value: int = key(
        0,
        "For `folder`: the value in the label files that marks pixels without a class (void).",
        at_least=0,
        at_most=255,
    )
    remap: str = key("", "For `folder`: the meaning of further values in the label files, for example `7:1,9:void`.")
    on_error: Annotated[str, OneOf(choices.actions_on_error)] = key(
        "stop", "Action for an image or label that cannot be used.", resumable=True
    )
    holdout: int = key(
        0, "Number of training images to hold out: they form the split `holdout` instead.", unit="images", at_least=0
    )
    holdout_seed: int = key(0, "Seed of the random choice of the held-out images.", at_least=0, at_most=MAX_SEED)
    crop_px: int = key(
        512,
        "Height and width of the training crops. It must be a multiple of the pyramid's coarsest stride.",
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

    backbone: Annotated[str, OneOf(choices.backbones)] = key("hrnet_w48", "Network that computes the features.")
    context: Annotated[str, OneOf(choices.contexts)] = key(
        "coarse_to_fine", "Context module between backbone and heads (Sec. 3.3)."
    )
    representation: Annotated[str, OneOf(choices.representations)] = key(
        "pyramid",
        "Kind of prediction: the paper's pyramid, or one class per pixel.",
    )
    strides: tuple[StrictInt, ...] = key(
        (),
        "Strides of the pyramid's levels, coarse to fine. Each stride is twice the next. () takes 8, 4, 2 and 1 times the stride "
        "of the finest map, (32, 16, 8, 4) on an HRNet.",
        unit="px",
    )
    semantic_width: int = key(512, "Channels of the semantic features, D_s.", unit="channels", at_least=1)
    key_width: int = key(256, "Channels of the attention's queries and keys.", unit="channels", at_least=1)
    unity_width: int = key(128, "Channels of the unity features, D_u.", unit="channels", at_least=1)
    resize: Annotated[str, OneOf(choices.resize_conventions)] = key(
        "half_pixel",
        "Convention for upsampling in the backbone and the context module. Published weights come with different ones.",
    )
    output_stride: int | None = key(
        None, "Stride of the last stage of a ResNet: 8, 16 or 32. None takes the backbone's default.", unit="px"
    )
    stem: Annotated[str | None, OneOf(choices.stems)] = key(
        None, "First layers of a ResNet. None takes the backbone's default."
    )
    dilation: Annotated[str | None, OneOf(choices.dilation_rules)] = key(
        None, "Dilation of the first block of a ResNet's dilated stages. None takes the backbone's default."
    )
    multi_grid: tuple[StrictInt, ...] | None = key(
        None, "Dilation of each block of a ResNet's last stage. None follows the output stride.", is_tuple=True
    )
    init: str | None = key(
        None,
        "Weights to start from: a file of published weights, or several that are parts of one network, joined with commas, or the "
        "folder of another run. None starts from random weights.",
    )
    remat: Annotated[str, OneOf(choices.remats)] = key(
        "off",
        "Activations that the backward pass recomputes to save memory.",
        resumable=True,
    )
    dtype: Annotated[str, OneOf(choices.dtypes)] = key(
        "bfloat16", "Number format of the computation. Parameters and loss are always float32."
    )


@group
class Training:
    """The training recipe."""

    batch_size: int = key(16, "Global batch size: images per step over all devices.", unit="images", at_least=1)
    steps: Annotated[int, Duration(at_least=1)] = duration(150_000, "Length of the training.")
    learning_rate: float = key(0.02, "Peak learning rate of the backbone.", at_least=0)
    head_multiplier: float = key(1.0, "Learning-rate multiplier for everything except the backbone.", at_least=0)
    warmup_steps: Annotated[int, Duration(at_least=0)] = duration(
        0, "Length of the linear warm-up at the start of training."
    )
    poly_power: float = key(0.9, "Exponent p of the schedule learning_rate · (1 − step / steps)^p.", at_least=0)
    momentum: float = key(0.9, "Momentum of SGD.", at_least=0)
    weight_decay: float = key(1e-4, "Weight decay (L2) on all parameters.", at_least=0)
    procedure: Annotated[str, OneOf(choices.procedures)] = key(
        "tp",
        "Training procedure: which cells of a pyramid are don't care because a coarser level decides them (Sec. 3.1).",
    )
    threshold: float = key(
        0.5,
        "Unity probability τ at or above which training counts a cell as a predicted unit-cell.",
        at_least=0,
        at_most=1,
    )
    void: Annotated[str, OneOf(choices.void_rules)] = key(
        "agree", "Treatment of a cell with void pixels whose labeled pixels share one class."
    )
    supervision: Annotated[str, OneOf(choices.supervisions)] = key(
        "finest", "Without a pyramid: compute the loss against labels at the finest stride, or at full size."
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
        0,
        "Number of pixels in a batch that are always used, however well they are predicted.",
        unit="pixels",
        at_least=0,
    )
    accumulate: int = key(
        1,
        "Micro-batches that each batch is split into, to save memory; they are computed one after another. Batch "
        "statistics are those of a micro-batch.",
        unit="micro-batches",
        at_least=1,
    )
    log_every: Annotated[int, Duration(at_least=1)] = duration(
        50, "Interval between lines of metrics.jsonl.", resumable=True
    )
    evaluate_every: Annotated[int, Duration(at_least=1)] = duration(
        10_000, "Interval between evaluations.", resumable=True
    )
    save_every: Annotated[int, Duration(at_least=1)] = duration(1_000, "Interval between checkpoints.", resumable=True)
    stall_s: float = key(
        600.0,
        "Log the stack of every thread when a step takes longer than this. 0 disables these reports.",
        unit="s",
        at_least=0,
        resumable=True,
    )
    profile: str | None = key(
        None,
        "First and last step to record with the profiler, for example `10:15`. None disables the profiler.",
        resumable=True,
    )
    keep_last: int = key(
        2, "Newest checkpoints to keep, in addition to the best one.", unit="checkpoints", at_least=1, resumable=True
    )
    stop_after: Annotated[int | None, Duration(at_least=1, can_be_none=True)] = duration(
        None, "Stop at this step without shortening the schedules. None trains to the end.", resumable=True
    )


@group
class Evaluation:
    """How predictions are made and scored. The protocol, the sizes and the threshold also apply to `predict`."""

    split: str = key(
        "validation",
        "Split to score: `validation`, `training`, `holdout`, or another split of the data set.",
        resumable=True,
    )
    protocol: Annotated[str, OneOf(choices.protocols)] = key(
        "single", "Evaluation protocol: sizes, scales, windows and mirroring of the views.", resumable=True
    )
    batch_size: int = key(8, "Images in an evaluation batch.", unit="images", at_least=1, resumable=True)
    threshold: float = key(
        0.5,
        "Unity probability τ at or above which a cell decides its region when the levels are fused.",
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
        2048, "Maximum length of the long side, for the same protocols.", unit="px", at_least=1, resumable=True
    )
    analysis: bool = key(
        True, "Write tables and figures about the pyramid, after `evaluate` and at the end of training.", resumable=True
    )
    num_pictures: int = key(
        4,
        "Number of images of the split for which predictions are drawn after training.",
        unit="images",
        at_least=0,
        resumable=True,
    )


@group
class Parallel:
    """How the work is divided among devices (docs/guide/scaling.md)."""

    data: int = key(
        -1,
        "Number of devices, or groups of devices, that share the batch. -1 uses all devices.",
        unit="devices",
        at_least=-1,
        resumable=True,
    )
    spatial: int = key(
        1, "Number of devices that share the rows of each training image.", unit="devices", at_least=1, resumable=True
    )
    shard_state: bool = key(
        False,
        "Shard the parameters and the optimizer state over the devices, instead of a full copy on each.",
        resumable=True,
    )


@group
class Config:
    """One experiment.

    Attributes:
      said: the original text of durations that have been converted to steps, for example
        `{"training.steps": "120 epochs"}`. It is a record and not a key.
    """

    seed: int = key(
        0,
        "Seed for the initial weights, the order of the images, and their augmentation.",
        at_least=0,
        at_most=MAX_SEED,
    )
    data: Data = Data()
    model: Model = Model()
    training: Training = Training()
    evaluation: Evaluation = Evaluation()
    parallel: Parallel = Parallel()
    said: dict[str, str] = Field(default_factory=dict)
