"""The names that a key may have as its value. Each list is looked up in the code that knows it, when it is asked for.

The imports stand inside the functions because several of them start jax, which takes seconds that `pyrseg help` does not have.
"""

from collections.abc import Iterable


def datasets() -> Iterable[str]:
    """Return the names of the data sets."""
    from pyrseg_jax.data.catalog import DATASETS

    return DATASETS


def actions_on_error() -> Iterable[str]:
    """Return what can be done about an image that cannot be used."""
    from pyrseg_jax.data.catalog import ON_ERROR

    return ON_ERROR


def backbones() -> Iterable[str]:
    """Return the names of the backbones."""
    from pyrseg_jax.models.backbones import BACKBONES

    return BACKBONES


def contexts() -> Iterable[str]:
    """Return the names of the context modules."""
    from pyrseg_jax.models.contexts import CONTEXTS

    return CONTEXTS


def representations() -> Iterable[str]:
    """Return what a network can predict."""
    from pyrseg_jax.models.segmenter import REPRESENTATIONS

    return REPRESENTATIONS


def resize_conventions() -> Iterable[str]:
    """Return the conventions of bilinear upsampling."""
    from pyrseg_jax.models.resample import RESIZE_CONVENTIONS

    return RESIZE_CONVENTIONS


def remats() -> Iterable[str]:
    """Return how much of the activations the backward pass can compute again."""
    from pyrseg_jax.models.blocks import REMATS

    return REMATS


def dtypes() -> Iterable[str]:
    """Return the number formats of the computation."""
    from pyrseg_jax.models.segmenter import DTYPES

    return DTYPES


def procedures() -> Iterable[str]:
    """Return the training procedures."""
    from pyrseg_jax.pyramid import PROCEDURES

    return PROCEDURES


def void_rules() -> Iterable[str]:
    """Return what void pixels can do to a cell."""
    from pyrseg_jax.pyramid import VOID_RULES

    return VOID_RULES


def supervisions() -> Iterable[str]:
    """Return at which size a prediction per pixel can be compared with the truth."""
    from pyrseg_jax.training.objective import SUPERVISIONS

    return SUPERVISIONS


def protocols() -> Iterable[str]:
    """Return the names of the evaluation protocols."""
    from pyrseg_jax.evaluation.views import PROTOCOLS

    return PROTOCOLS
