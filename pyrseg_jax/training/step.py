"""One training step: a pure function, jitted and sharded over the mesh."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float

from pyrseg_jax.distributed import mesh as mesh_lib
from pyrseg_jax.models.inputs import normalize
from pyrseg_jax.training import freezing
from pyrseg_jax.training.averaging import begin_average, move_average

# Arrays of at most this many numbers are joined before their squares are summed; see `global_norm`.
MAX_JOINED_SIZE = 1 << 15


@flax.struct.dataclass
class TrainState:
    """Everything that changes from step to step.

    Attributes:
      step: () int32, the number of steps taken so far.
      params: trainable parameters, float32.
      batch_stats: running mean and variance of every batch normalization.
      opt_state: the optimizer's state.
      average: the moving average of the variables, with the same two keys; None without one.
    """

    step: Any  # no narrower type: jax also builds this class from shapes, shardings and host arrays
    params: dict
    batch_stats: dict
    opt_state: optax.OptState
    average: Any = None

    @property
    def variables(self) -> dict:
        """The variables that training continues from, as `model.apply` takes them."""
        return {"params": self.params, "batch_stats": self.batch_stats}

    @property
    def predicting(self) -> dict:
        """The variables that are evaluated and used: the moving average, or the variables themselves without one."""
        return self.variables if self.average is None else self.average


@dataclasses.dataclass(frozen=True)
class StepOptions:
    """What a training step does beside descending the gradient.

    Attributes:
      clip_norm: a gradient with a larger global norm is scaled down to it; None: never.
      ema: decay of the moving average of the variables, 0 … 1; None: no average. See `averaging.move_average`.
      frozen: patterns of variables that stay as they are; see `freezing`. Dropout and drop path stay on there.
    """

    clip_norm: float | None = None
    ema: float | None = None
    frozen: tuple[str, ...] = ()


NO_OPTIONS = StepOptions()


def initial_state(
    variables: dict, optimizer: optax.GradientTransformation, options: StepOptions = NO_OPTIONS
) -> TrainState:
    """Return the state before the first step; call it under `jax.eval_shape` to get shapes alone."""
    params, batch_stats = variables["params"], variables["batch_stats"]
    average = None
    if options.ema is not None:
        average = begin_average({"params": params, "batch_stats": batch_stats})
    # Without the jit, `init` would compile and run one program for each shape among the parameters.
    return TrainState(jnp.zeros((), jnp.int32), params, batch_stats, jax.jit(optimizer.init)(params), average)


Metrics = dict[str, Float[Array, ""]]
StepFunction = Callable[[TrainState, dict[str, jax.Array]], tuple[TrainState, Metrics]]


def make_train_step(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    objective: Callable,
    mesh: Mesh,
    seed: int = 0,
    *,
    accumulate: int = 1,
    options: StepOptions = NO_OPTIONS,
    state_sharding: Any = None,
) -> jax.stages.Wrapped:
    """Make the jitted training step `(state, batch) -> (state, metrics)`.

    Args:
      model: images (N, H, W, 3) → prediction; it has batch statistics.
      optimizer: the optimizer of the model's parameters.
      objective: (prediction, labels (N, H, W)) → (loss, terms), with means over the batch that the network sees.
      mesh: the mesh that the batch is sharded over.
      seed: seed for dropout, which also depends on the step.
      accumulate: k. The step takes the batch as k micro-batches, one after another, and averages their gradients. Batch
        statistics, means and relabeling then belong to each micro-batch, and only one micro-batch's activations need memory.
      options: clipping, moving average and freezing; `initial_state` takes the same.
      state_sharding: sharding of each leaf of the state, as returned by `mesh.state_sharding`; None: every device holds the
        whole state.

    Returns:
      The step. Its batch holds `image` (N, H, W, 3) and `label` (N, H, W), both uint8, sharded as by `images_to_devices`. Its
      metrics are scalars: `loss`, each term of the objective, `gradient_norm` of the gradient before it is clipped, and with
      clipping `clip_factor`, which the gradient was multiplied by (1: it was not clipped). The step donates the memory of the old
      state to the new one, so the caller must not use the old state again.
    """
    everywhere = mesh_lib.replicated(mesh)
    state_sharding = everywhere if state_sharding is None else state_sharding
    frozen = options.frozen

    def step(state: TrainState, batch: dict[str, jax.Array]) -> tuple[TrainState, Metrics]:
        # A sharded state is gathered once here, not once per use.
        params, batch_stats = mesh_lib.constrain((state.params, state.batch_stats), everywhere)
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        free, complete = freezing.differentiable(params, frozen)
        differentiate = _differentiated(model, objective, complete, freezing.marks(batch_stats, frozen))
        if accumulate == 1:
            (_, (metrics, new_stats)), gradients = differentiate(free, batch_stats, batch, key)
        else:
            micro_step = functools.partial(differentiate, free)
            gradients, metrics, new_stats = _accumulate(micro_step, batch_stats, batch, key, accumulate, mesh)
        metrics["gradient_norm"] = global_norm(gradients)
        if options.clip_norm is not None:
            gradients, metrics["clip_factor"] = _clip(gradients, metrics["gradient_norm"], options.clip_norm)
        gradients = freezing.with_zeros(gradients, params, frozen)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        updated: Any = optax.apply_updates(state.params, updates)  # a tree like `state.params`
        updated, new_stats = freezing.keep(state.params, updated, frozen), freezing.keep(batch_stats, new_stats, frozen)
        average = _moved(state, {"params": updated, "batch_stats": new_stats}, options)
        return TrainState(state.step + 1, updated, new_stats, opt_state, average), metrics

    shardings = (state_sharding, mesh_lib.image_sharding(mesh))
    return jax.jit(step, in_shardings=shardings, out_shardings=(state_sharding, everywhere), donate_argnums=0)


def _differentiated(model: nn.Module, objective: Callable, complete: Callable[[dict], dict], marks: dict) -> Callable:
    """Return the loss and its gradient as a function of parameters, batch statistics, batch and key; `complete`: see `freezing`."""

    def loss_of(free: dict, batch_stats: dict, batch: dict[str, jax.Array], key: jax.Array):
        predicted, updates = model.apply(
            {"params": complete(free), "batch_stats": batch_stats, **marks},
            normalize(batch["image"]),
            True,
            mutable=["batch_stats"],
            rngs={"dropout": key},
        )
        loss, terms = objective(predicted, batch["label"])
        return loss, ({"loss": loss, **terms}, updates["batch_stats"])

    return jax.value_and_grad(loss_of, has_aux=True)


def _clip(gradients: dict, norm: Float[Array, ""], limit: float) -> tuple[dict, Float[Array, ""]]:
    """Scale gradients with a larger norm than the limit down to it; also return the factor."""
    factor = jnp.minimum(1.0, limit / jnp.maximum(norm, jnp.finfo(norm.dtype).tiny))
    return jax.tree.map(lambda x: x * factor.astype(x.dtype), gradients), factor


def _moved(state: TrainState, variables: dict, options: StepOptions) -> dict | None:
    """Return the moving average after a step, if there is one."""
    if options.ema is None or state.average is None:
        return None
    moved = move_average(state.average, variables, state.step, options.ema)
    return {kind: freezing.keep(state.average[kind], tree, options.frozen) for kind, tree in moved.items()}


def global_norm(tree: dict) -> Float[Array, ""]:
    """Return the root of the sum of the squares of all numbers in a tree of arrays; equals `optax.global_norm`.

    Each sum is a program of its own on the device. About four fifths of a network's arrays are small, so this function
    concatenates those before it sums them.
    """
    leaves = jax.tree.leaves(tree)
    small = [x.ravel() for x in leaves if x.size <= MAX_JOINED_SIZE]
    large = [x for x in leaves if x.size > MAX_JOINED_SIZE]
    joined = [jnp.concatenate(small)] if small else []
    return jnp.sqrt(sum(jnp.square(x).sum() for x in [*joined, *large]))


def _accumulate(
    differentiate: Callable, batch_stats: dict, batch: dict, key: jax.Array, accumulate: int, mesh: Mesh
) -> tuple[dict, Metrics, dict]:
    """Average gradients and metrics over micro-batches; batch statistics pass from each micro-batch to the next."""
    # A micro-batch takes every accumulate-th image, so that all images stay on their devices.
    split = jax.tree.map(lambda x: x.reshape(-1, accumulate, *x.shape[1:]).swapaxes(0, 1), batch)

    def take_one(batch_stats, micro, key):
        (_, (metrics, batch_stats)), gradients = differentiate(batch_stats, micro, key)
        return batch_stats, (gradients, metrics)

    def add(carry, numbered):
        batch_stats, sums = carry
        number, micro = numbered
        micro = mesh_lib.constrain(micro, mesh_lib.image_sharding(mesh))
        batch_stats, found = take_one(batch_stats, micro, jax.random.fold_in(key, number))
        return (batch_stats, jax.tree.map(jnp.add, sums, found)), None

    first = jax.tree.map(lambda x: x[0], split)
    _, shapes = jax.eval_shape(take_one, batch_stats, first, key)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    (batch_stats, sums), _ = jax.lax.scan(add, (batch_stats, zeros), (jnp.arange(accumulate), split))
    gradients, metrics = jax.tree.map(lambda x: x / accumulate, sums)
    return gradients, metrics, batch_stats
