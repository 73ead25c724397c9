"""The keys `data.*`."""

from typing import Annotated

from pyrseg_jax.run import choices
from pyrseg_jax.run.declare import OneOf, group, key
from pyrseg_jax.run.schema.seeds import MAX_SEED


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
        at_most=65535,
    )
    remap: str = key("", "For `folder`: the meaning of further values in the label files, for example `7:1,9:void`.")
    channels: int = key(
        3,
        "For `folder`: the number of channels of the images, 3 for photographs.",
        unit="channels",
        at_least=1,
        at_most=16,
    )
    scaling: str = key(
        "",
        "For `folder`: how values of 16 bits or floats become 0 … 255. `fixed:LOW:HIGH` gives the values that become 0 and 255, "
        "one for all channels or one for each, as in `fixed:0,0:3000,500`; `percentile` measures the 1st and the 99th percentile "
        "of the training images, and `percentile:2:98` others. Empty: images hold 8 bits.",
    )
    nodata: str = key(
        "",
        "For `folder`: values in the images that stand for missing data, with commas between them, besides NaN and those that a "
        "TIFF names. Pixels without data in any channel are void.",
    )
    on_error: Annotated[str, OneOf(choices.actions_on_error)] = key(
        "stop", "Action for an image or label that cannot be used.", resumable=True
    )
    holdout: int = key(
        0, "Number of training images to hold out: they form the split `holdout` instead.", unit="images", at_least=0
    )
    holdout_seed: int = key(
        0, "Seed of the random choice of the held-out images, and of the folds.", at_least=0, at_most=MAX_SEED
    )
    folds: int = key(
        0,
        "Number of parts that the training images are divided into, for cross-validation. The part `data.fold` forms the split "
        "`holdout`, and the others are trained on. 0 switches this off.",
        unit="folds",
        at_least=0,
    )
    fold: int = key(0, "Which of the folds to hold out: 0 … `data.folds` − 1.", at_least=0)
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
    rare_sampling: float = key(
        0.0,
        "Share of the training images that are drawn for a class, rare classes more often, instead of each image once in an "
        "epoch. 0 switches this off.",
        at_least=0,
        at_most=1,
    )
    rare_temperature: float = key(
        0.01,
        "Temperature T of that draw: the probability of a class with the share f of the pixels is proportional to "
        "exp((1 − f) / T).",
        at_least=1e-4,
    )
    workers: int = key(
        4,
        "Processes that read and augment images. 0 uses threads of the training process.",
        unit="processes",
        at_least=0,
        resumable=True,
    )
