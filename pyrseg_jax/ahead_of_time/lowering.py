"""Lower the training and the evaluation step from shapes alone, and count the FLOPs of a training step."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jax.typing import DTypeLike

from pyrseg_jax.distributed import mesh as mesh_lib
from pyrseg_jax.evaluation.view_predictor import ViewPredictor
from pyrseg_jax.evaluation.views import Protocol
from pyrseg_jax.models.initial import abstract_variables, channels_of
from pyrseg_jax.models.segmenter import Segmenter
from pyrseg_jax.training.step import NO_OPTIONS, StepOptions, initial_state, make_train_step


def trace_training(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    objective: Callable,
    mesh: Mesh,
    *,
    batch_size: int,
    crop_px: int,
    accumulate: int = 1,
    options: StepOptions = NO_OPTIONS,
    is_state_sharded: bool = False,
    image_dtype: DTypeLike = jnp.uint8,
    label_dtype: DTypeLike = jnp.uint8,
) -> jax.stages.Traced:
    """Trace the training step as `training.step.make_train_step` makes it.

    Args:
      model: the segmenter.
      optimizer: the optimizer of the model's parameters.
      objective: (prediction, labels) → (loss, terms).
      mesh: devices that the batch is split over; they need not exist.
      batch_size: number of images over all devices.
      crop_px: height and width of the images.
      accumulate: number of micro-batches that the batch is taken in.
      options: options of the training step.
      is_state_sharded: whether parameters and optimizer state are split over the devices.
      image_dtype, label_dtype: types of images and label maps.
    """
    state = jax.eval_shape(lambda v: initial_state(v, optimizer, options), abstract_variables(model, crop_px))
    sharding = mesh_lib.state_sharding(mesh, state, is_state_sharded)
    step = make_train_step(
        model, optimizer, objective, mesh, accumulate=accumulate, options=options, state_sharding=sharding
    )
    shape, rows = (batch_size, crop_px, crop_px), mesh_lib.image_sharding(mesh)
    batch = {
        "image": jax.ShapeDtypeStruct((*shape, channels_of(model)), image_dtype, sharding=rows),
        "label": jax.ShapeDtypeStruct(shape, label_dtype, sharding=rows),
    }
    state = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, sharding)
    return step.trace(state, batch)  # pyright: ignore[reportFunctionMemberAccess]  # the step is a jitted function


def count_flops_per_image(
    model: nn.Module, objective: Callable, crop_px: int, options: StepOptions = NO_OPTIONS
) -> float:
    """Count the FLOPs of a training step for one image, without the optimizer's.

    An optimizer computes the same for any number of images, and Muon's matrix products are many. The step is lowered for one
    CPU device and without micro-batches: the count of a loop is that of one round, and for TPUs JAX counts no FLOPs before
    compilation. After it, they would include padding.
    """
    mesh = mesh_lib.make_mesh(1, devices=jax.devices("cpu")[:1])
    no_optimizer = optax.identity()
    traced = trace_training(model, no_optimizer, objective, mesh, batch_size=1, crop_px=crop_px, options=options)
    cost = traced.lower().cost_analysis()
    assert cost is not None, "XLA counts the FLOPs of lowered programs on CPU"
    return cost["flops"]


def lower_evaluation(
    model: Segmenter,
    protocol: Protocol,
    threshold: float,
    mesh: Mesh,
    *,
    batch_size: int,
    crop_px: int,
    image_dtype: DTypeLike = jnp.uint8,
) -> jax.stages.Lowered:
    """Lower the network of an evaluation.

    Args:
      model: the segmenter.
      protocol: the evaluation protocol.
      threshold: τ of the fuser.
      mesh: the devices of one process.
      batch_size: number of images, a multiple of the number of devices.
      crop_px: height and width of the images. Those of an evaluation differ in size; this one stands for all.
      image_dtype: type of the images.
    """
    whole, rows = mesh_lib.replicated(mesh), mesh_lib.batch_sharding(mesh)
    predictor = ViewPredictor(model, protocol, threshold, whole, rows)
    variables = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), abstract_variables(model, crop_px)
    )
    images = jax.ShapeDtypeStruct((batch_size, crop_px, crop_px, model.channels), image_dtype, sharding=rows)
    is_mirrored = jax.ShapeDtypeStruct((batch_size,), jnp.bool_, sharding=rows)
    return predictor.lower(variables, images, is_mirrored)
