"""The names that a key may have as its value, each with its meaning in one line, for help texts.

Each function looks its names up in the code that defines them, when it is called. The imports are inside the functions because
several of these modules import JAX, which takes seconds that `pyrseg help` should not need.
"""

from collections.abc import Mapping

Choices = Mapping[str, str]  # name → meaning; "" where none is given


def datasets() -> Choices:
    """Return the data sets."""
    from pyrseg_jax.data.catalog import DATASETS

    return {name: spec.meaning for name, spec in DATASETS.items()}


def actions_on_error() -> Choices:
    """Return the actions for an image or label that cannot be used."""
    from pyrseg_jax.data.catalog import ON_ERROR

    return ON_ERROR


def backbones() -> Choices:
    """Return the backbones."""
    from pyrseg_jax.models.backbones import BACKBONES

    return {name: spec.meaning for name, spec in BACKBONES.items()}


def stems() -> Choices:
    """Return the stems of ResNets."""
    from pyrseg_jax.models.backbones.resnet import STEMS

    return STEMS


def dilation_rules() -> Choices:
    """Return the rules by which ResNets are dilated."""
    from pyrseg_jax.models.backbones.resnet import DILATION_RULES

    return DILATION_RULES


def contexts() -> Choices:
    """Return the context modules."""
    from pyrseg_jax.models.contexts import CONTEXTS

    return {name: spec.meaning for name, spec in CONTEXTS.items()}


def representations() -> Choices:
    """Return the kinds of predictions."""
    from pyrseg_jax.models.segmenter import REPRESENTATIONS

    return REPRESENTATIONS


def resize_conventions() -> Choices:
    """Return the conventions for upsampling."""
    from pyrseg_jax.models.resample import RESIZE_CONVENTIONS

    return RESIZE_CONVENTIONS


def remats() -> Choices:
    """Return how much of the activations the backward pass can recompute."""
    from pyrseg_jax.models.blocks import REMATS

    return REMATS


def dtypes() -> Choices:
    """Return the number formats of the computation."""
    from pyrseg_jax.models.segmenter import DTYPES

    meanings = {
        "float32": "single precision, for CPUs and for comparisons",
        "bfloat16": "mixed precision: half the memory, and faster on accelerators",
    }
    return {name: meanings.get(name, "") for name in DTYPES}


def procedures() -> Choices:
    """Return the training procedures."""
    from pyrseg_jax.pyramid import PROCEDURES

    return PROCEDURES


def void_rules() -> Choices:
    """Return the rules for cells with void pixels."""
    from pyrseg_jax.pyramid import VOID_RULES

    return VOID_RULES


def supervisions() -> Choices:
    """Return the sizes at which a prediction per pixel can be compared with the truth."""
    from pyrseg_jax.models.supervision import SUPERVISIONS

    return SUPERVISIONS


def optimizers() -> Choices:
    """Return the optimizers."""
    from pyrseg_jax.training.optimizer import OPTIMIZERS

    return OPTIMIZERS


def decay_masks() -> Choices:
    """Return the choices of parameters that weight decay touches."""
    from pyrseg_jax.training.optimizer import DECAY_MASKS

    return DECAY_MASKS


def schedules() -> Choices:
    """Return the learning-rate schedules."""
    from pyrseg_jax.training.schedules import SCHEDULES

    return SCHEDULES


def best_metrics() -> Choices:
    """Return the scores by which the best checkpoint can be chosen."""
    from pyrseg_jax.training.scores import METRICS

    return {name: metric.meaning for name, metric in METRICS.items()}


def labels_of_erased() -> Choices:
    """Return what can become of the labels of erased pixels."""
    from pyrseg_jax.data.augmentation.erasing import LABELS

    return LABELS


def mixes() -> Choices:
    """Return the ways to mix two images."""
    from pyrseg_jax.data.augmentation.mixing import MIXES

    meanings = {
        "cutmix": "paste a random rectangle of a second image",
        "classmix": "paste all pixels of a random half of the classes of a second image",
    }
    return {"none": "images are not mixed"} | {name: meanings.get(name, "") for name in MIXES}


def protocols() -> Choices:
    """Return the evaluation protocols."""
    from pyrseg_jax.evaluation.views import PROTOCOLS

    views = "but with mirrored views and scales 0.5 … 1.75"
    meanings = {
        "single": "one view, whole, at the size that short_side_px and long_side_px set",
        "multi_scale_flip": f"as single, {views}",
        "hrnet": "as in HRNet's code: short side 520 px, in windows of 512 px",
        "hrnet_multi_scale_flip": "as hrnet, but with mirrored views and scales 0.5 … 2",
        "mmsegmentation": "as in MMSegmentation: short side 512 px, long side at most 2048 px",
        "mmsegmentation_multi_scale_flip": f"as mmsegmentation, {views}",
    }
    return {name: meanings.get(name, "") for name in PROTOCOLS}
