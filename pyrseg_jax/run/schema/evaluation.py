"""The keys `evaluation.*`."""

from typing import Annotated

from pyrseg_jax.run import choices
from pyrseg_jax.run.declare import OneOf, group, key


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
    loss: bool = key(True, "Compute the validation loss.", resumable=True)
    analysis: bool = key(
        True, "Write tables and figures about the pyramid, after `evaluate` and at the end of training.", resumable=True
    )
    calibration: bool = key(
        False,
        "Measure how true confidences are: the expected calibration error and the reliability diagram, also with the temperatures "
        "of `pyrseg calibrate` if there are any.",
        resumable=True,
    )
    report: bool = key(
        True,
        "Write the page `report.html` at the end of training. With `num_pictures` = 0 it shows no images.",
        resumable=True,
    )
    num_pictures: int = key(
        4,
        "Number of images of the split for which predictions are drawn after training.",
        unit="images",
        at_least=0,
        resumable=True,
    )
