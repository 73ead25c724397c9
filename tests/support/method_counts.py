"""Count parameters and multiply-adds of a network's parts, from the shapes of its features and without computing anything."""

import functools
from typing import NamedTuple
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from pyrseg_jax.models.backbones import Features
from pyrseg_jax.models.initial import abstract_variables, num_parameters
from pyrseg_jax.models.segmenter import Segmenter
from support.multiply_adds import multiply_adds

SIDE = 512  # of the image, in pixels
IMAGES = jax.ShapeDtypeStruct((1, SIDE, SIDE, 3), np.float32)


class Zeros(nn.Module):
    """A backbone that returns zeros of given shapes, whatever the images are.

    Attributes:
      shapes: `Features` of shapes.
    """

    shapes: Features

    @nn.compact
    def __call__(self, images, train=False):
        return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), self.shapes)


class Parts(NamedTuple):
    """The counts of a network.

    Attributes:
      head: parameters of everything but backbone and auxiliary classifier.
      auxiliary: parameters of the auxiliary classifier.
      convolutions: billions of multiply-adds of the head's convolutions.
      products: of its convolutions and all matrix products. Neither holds the auxiliary classifier.
      compiler: half the floating-point operations that XLA counts in the lowered program of the head and of the auxiliary
        classifier, in billions; None where it was not asked.
    """

    head: int
    auxiliary: int
    convolutions: float
    products: float
    compiler: float | None = None


def as_convolutions():
    """Write 1×1 convolutions as such, and not as matrix products, so that a program tells them from other products."""
    return mock.patch("pyrseg_jax.models.layers.convolve_as_matrix_product", jax.lax.conv_general_dilated)


@functools.lru_cache
@as_convolutions()
def features_of(backbone: nn.Module) -> Features:
    """Return the shapes of a backbone's features of an image of 512 × 512 pixels."""
    return jax.eval_shape(backbone.apply, abstract_variables(backbone), IMAGES)


@as_convolutions()
def count_head(model: Segmenter, shapes: Features | None = None, asks_compiler: bool = False) -> Parts:
    """Count what stands on the backbone of a network.

    Args:
      model: the network.
      shapes: of the backbone's features; None: those of the backbone as it is. A network with a gate keeps its backbone.
      asks_compiler: whether to lower the program and ask XLA for its count as well.
    """
    removed = Parts(0, 0, 0.0, 0.0, 0.0)
    if model.gate is None:
        model = model.clone(backbone=Zeros(features_of(model.backbone) if shapes is None else shapes))
    else:
        removed = count_backbone(model.backbone, asks_compiler)
    variables = abstract_variables(model, side=SIDE)
    sizes = {part: num_parameters({"params": tree}) for part, tree in variables["params"].items()}
    products = _count_both(model, variables) - _count_auxiliary(model, variables)
    compiler = _ask_compiler(model, variables) - (removed.compiler or 0.0) if asks_compiler else None
    return Parts(
        sum(sizes.values()) - sizes.get("auxiliary_head", 0) - removed.head,
        sizes.get("auxiliary_head", 0),
        products[0] - removed.convolutions,
        products[1] - removed.products,
        compiler,
    )


@functools.lru_cache
@as_convolutions()
def count_backbone(backbone: nn.Module, asks_compiler: bool = False) -> Parts:
    """Count a backbone by itself, in the fields of a head."""
    variables = abstract_variables(backbone)
    compiler = _ask_compiler(backbone, variables) if asks_compiler else None
    return Parts(num_parameters(variables), 0, *_count_both(backbone, variables), compiler)


def _count_both(model: nn.Module, variables: dict, images: jax.ShapeDtypeStruct = IMAGES) -> np.ndarray:
    """Return the billions of multiply-adds of the convolutions, and of all products."""
    program = jax.make_jaxpr(lambda v, x: model.apply(v, x, False))(variables, images)
    return np.array([multiply_adds(program.jaxpr, only) / 1e9 for only in (True, False)])


def _count_auxiliary(model: Segmenter, variables: dict) -> np.ndarray:
    """Return the same of the auxiliary classifier."""
    if model.auxiliary_head is None:
        return np.zeros(2)
    features = model.backbone.shapes
    read = features.final if model.auxiliary_stage is None else features.stages[model.auxiliary_stage]
    return _count_both(model.auxiliary_head, {kind: tree["auxiliary_head"] for kind, tree in variables.items()}, read)


def _ask_compiler(model: nn.Module, variables: dict) -> float:
    found = jax.jit(model.apply).lower(variables, IMAGES).cost_analysis()
    return found["flops"] / 2e9
