"""Predict single windows of a large image with a network."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Real

from pyrseg_jax.evaluation.predict import predict
from pyrseg_jax.evaluation.whole_tokens import sampled_maps, with_tokens
from pyrseg_jax.models.segmenter import Segmenter


class NetworkInWindows:
    """A `windows.WindowModel` of a network and its variables.

    Args:
      model: the network.
      variables: the parameters and batch statistics.
      threshold: τ of the fuser.
      temperatures: (L,) T of each level, by which confidences are scaled; None: they are not.
    """

    def __init__(
        self, model: Segmenter, variables: dict, threshold: float, temperatures: Float[np.ndarray, "l"] | None = None
    ):
        self._variables, self.is_scaled = variables, temperatures is not None
        self.stride, self.coarsest_stride = model.prediction_strides[-1], model.strides[0]
        powers = None if temperatures is None else jnp.asarray(1 / temperatures, jnp.float32)
        self._predict = jax.jit(functools.partial(_predict, model, threshold=threshold, powers=powers))
        self._collect = jax.jit(functools.partial(sampled_maps, model))
        image = jax.ShapeDtypeStruct((1, model.strides[0], model.strides[0], model.channels), np.uint8)
        self.has_tokens = bool(jax.eval_shape(self._collect, variables, image))

    def predict(self, images: Real[np.ndarray, "1 h w c"], tokens: Any) -> Array:
        """Start to predict a window; see `windows.WindowModel.predict`."""
        return self._predict(with_tokens(self._variables, tokens), images=images)

    def collect(self, images: Real[np.ndarray, "1 h w c"]) -> Any:
        """Start to compute the maps of a window from which tokens are taken."""
        return self._collect(self._variables, images)


def _predict(model: Segmenter, variables: dict, images: Array, threshold: float, powers: Array | None) -> Array:
    found = predict(model, variables, images, threshold)
    if powers is None:
        return found.fused[0]
    return jnp.concatenate([found.fused[0], powers[found.level[0]][..., None]], axis=-1)
