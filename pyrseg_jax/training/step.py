"""One training step: pure, jitted, sharded over the mesh, its old state donated to the new one."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float

from pyrseg_jax import parallel
from pyrseg_jax.models.inputs import normalize


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
    return TrainState(jnp.zeros((), jnp.int32), params, batch_stats, optimizer.init(params))


Metrics = dict[str, Float[Array, ""]]
StepFunction = Callable[[TrainState, dict[str, jax.Array]], tuple[TrainState, Metrics]]


def make_train_step(
    model: nn.Module, optimizer: optax.GradientTransformation, objective: Callable, mesh: Mesh, seed: int = 0
) -> StepFunction:
    """Make the jitted step `(state, batch) -> (state, metrics)`.

    Args:
      model: images (N, H, W, 3) → prediction, with batch statistics.
      optimizer: of its parameters.
      objective: (prediction, labels (N, H, W)) → (loss, terms); means are over the global batch.
      mesh: the batch is split over it, the state is on all of its devices.
      seed: of the channels that dropout leaves out, together with the step.

    Returns:
      A function of the state, whose memory it takes over, and a batch of `image` (N, H, W, 3) and `label` (N, H, W), both
      uint8. Its metrics are scalars: `loss`, each term of the objective, and `gradient_norm`.
    """

    def step(state: TrainState, batch: dict[str, jax.Array]) -> tuple[TrainState, Metrics]:
        def loss_of(params):
            predicted, updates = model.apply(
                {"params": params, "batch_stats": state.batch_stats},
                normalize(batch["image"]),
                True,
                mutable=["batch_stats"],
                rngs={"dropout": jax.random.fold_in(jax.random.key(seed), state.step)},
            )
            loss, terms = objective(predicted, batch["label"])
            return loss, (terms, updates["batch_stats"])

        (loss, (terms, batch_stats)), gradients = jax.value_and_grad(loss_of, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = {"loss": loss, **terms, "gradient_norm": optax.global_norm(gradients)}
        return TrainState(state.step + 1, params, batch_stats, opt_state), metrics

    whole, split = parallel.replicated(mesh), parallel.batch_sharding(mesh)
    return jax.jit(step, in_shardings=(whole, split), out_shardings=(whole, whole), donate_argnums=0)
