"""Weight conversion under the path that other code imports it from; it lives in `models.weights`."""

from pyrseg_jax.models.weights.hrnet import convert_hrnet, convert_segmenter

__all__ = ["convert_hrnet", "convert_segmenter"]
