"""One training step: pure, jitted, sharded over the mesh, its old state donated to the new one."""

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

JOINED = 1 << 15  # numbers at most in an array that is joined with others, to sum them in one


@flax.struct.dataclass
class TrainState:
    """All that changes from step to step.

    Attributes:
      step: () int32, how many steps were taken.
      params: trainable float32 parameters.
      batch_stats: running mean and variance of every batch normalisation.
      opt_state: of the optimizer.
    """

    step: Any  # not annotated closer: jax also builds this class from shapes, shardings and host arrays
    params: dict
    batch_stats: dict
    opt_state: optax.OptState

    @property
    def variables(self) -> dict:
        """What `model.apply` takes."""
        return {"params": self.params, "batch_stats": self.batch_stats}


def initial_state(variables: dict, optimizer: optax.GradientTransformation) -> TrainState:
    """Return the state before the first step; under `jax.eval_shape` its shapes alone."""
    params, batch_stats = variables["params"], variables["batch_stats"]
    # One program: as it is, `init` runs one for each shape of parameters.
    return TrainState(jnp.zeros((), jnp.int32), params, batch_stats, jax.jit(optimizer.init)(params))


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
    state_sharding: Any = None,
) -> StepFunction:
    """Make the jitted step `(state, batch) -> (state, metrics)`.

    Args:
      model: images (N, H, W, 3) → prediction, with batch statistics.
      optimizer: of its parameters.
      objective: (prediction, labels (N, H, W)) → (loss, terms); means are over the batch that the network sees.
      mesh: the batch is split over it.
      seed: of the channels that dropout leaves out, together with the step.
      accumulate: k. The batch is taken as k micro-batches one after another, and the gradient is the mean of theirs; batch
        statistics, means and relabelling are of each micro-batch, so that only activations of one have to be kept.
      state_sharding: of each leaf of the state, as by `parallel.state_sharding`; None: all are on all devices.

    Returns:
      A function of the state, whose memory it takes over, and a batch of `image` (N, H, W, 3) and `label` (N, H, W), both
      uint8, sharded as `parallel.images_to_devices` does. Its metrics are scalars: `loss`, each term of the objective, and
      `gradient_norm`.
    """
    everywhere = mesh_lib.replicated(mesh)
    state_sharding = everywhere if state_sharding is None else state_sharding

    def differentiate(params, batch_stats, batch: dict[str, jax.Array], key: jax.Array):
        def loss_of(params):
            predicted, updates = model.apply(
                {"params": params, "batch_stats": batch_stats},
                normalize(batch["image"]),
                True,
                mutable=["batch_stats"],
                rngs={"dropout": key},
            )
            loss, terms = objective(predicted, batch["label"])
            return loss, (terms, updates["batch_stats"])

        (loss, (terms, batch_stats)), gradients = jax.value_and_grad(loss_of, has_aux=True)(params)
        return batch_stats, gradients, {"loss": loss, **terms}

    def step(state: TrainState, batch: dict[str, jax.Array]) -> tuple[TrainState, Metrics]:
        params, batch_stats = mesh_lib.constrain((state.params, state.batch_stats), everywhere)
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        if accumulate == 1:
            batch_stats, gradients, metrics = differentiate(params, batch_stats, batch, key)
        else:
            micro = functools.partial(differentiate, params)
            batch_stats, gradients, metrics = _accumulate(micro, batch_stats, batch, key, accumulate, mesh)
        metrics["gradient_norm"] = global_norm(gradients)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return TrainState(state.step + 1, params, batch_stats, opt_state), metrics

    shardings = (state_sharding, mesh_lib.image_sharding(mesh))
    return jax.jit(step, in_shardings=shardings, out_shardings=(state_sharding, everywhere), donate_argnums=0)


def global_norm(tree: dict) -> Float[Array, ""]:
    """Return the root of the sum of all squares of all arrays, as `optax.global_norm`.

    Small arrays, four fifths of a network's, are joined first: each sum is a program of its own.
    """
    leaves = jax.tree.leaves(tree)
    small = [x.ravel() for x in leaves if x.size <= JOINED]
    large = [x for x in leaves if x.size > JOINED]
    joined = [jnp.concatenate(small)] if small else []
    return jnp.sqrt(sum(jnp.square(x).sum() for x in [*joined, *large]))


def _accumulate(differentiate: Callable, batch_stats: dict, batch: dict, key: jax.Array, accumulate: int, mesh: Mesh):
    """Take a batch as micro-batches: batch statistics go from one to the next, gradients and metrics are averaged."""
    # Every accumulate-th image, so that each device's images stay where they are.
    split = jax.tree.map(lambda x: x.reshape(-1, accumulate, *x.shape[1:]).swapaxes(0, 1), batch)

    def add(carry, numbered):
        batch_stats, sums = carry
        number, micro = numbered
        micro = mesh_lib.constrain(micro, mesh_lib.image_sharding(mesh))
        batch_stats, *found = differentiate(batch_stats, micro, jax.random.fold_in(key, number))
        return (batch_stats, jax.tree.map(jnp.add, sums, tuple(found))), None

    first = jax.tree.map(lambda x: x[0], split)
    shapes = jax.eval_shape(differentiate, batch_stats, first, key)[1:]
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    (batch_stats, sums), _ = jax.lax.scan(add, (batch_stats, zeros), (jnp.arange(accumulate), split))
    return batch_stats, *jax.tree.map(lambda x: x / accumulate, sums)
