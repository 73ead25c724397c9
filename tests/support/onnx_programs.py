"""Small programs and networks as ONNX files, and what jax gives for the same inputs."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from pyrseg_jax.export.onnx.model import make_model
from pyrseg_jax.export.onnx.program import Program, make_program
from pyrseg_jax.export.onnx.session import Comparison, compare, open_session, run_session
from pyrseg_jax.export.onnx.twin import dense_twin
from pyrseg_jax.models.initial import abstract_variables
from pyrseg_jax.models.segmenter import Segmenter, build_segmenter

WIDTHS = {"semantic_width": 32, "key_width": 16, "unity_width": 8}
CLASSES = 6
HIERARCHY = (("a", "b"),) * 2 + (("a", "c"),) * 2 + (("d",),) * 2


def build(backbone: str, context: str, representation: str = "pyramid") -> Segmenter:
    """Build a narrow network."""
    options = {"representation": representation, "crop_px": 64, "hierarchy": HIERARCHY, **WIDTHS}
    return build_segmenter(CLASSES, backbone=backbone, context=context, **options)


def draw_weights(model: Segmenter, seed: int = 0) -> dict[str, np.ndarray]:
    """Draw weights that keep maps of a useful size and let the predictions differ from place to place."""
    rng = np.random.default_rng(seed)
    found = {}
    for at, array in flatten_dict(abstract_variables(model)).items():
        name, shape = "/".join(at), array.shape
        if name.endswith("/var"):
            drawn = rng.uniform(0.5, 1.5, shape)
        elif name.endswith("scale"):
            drawn = rng.uniform(
                0.4, 0.6, shape
            )  # trained blocks add less than random ones, which multiply every rounding
        elif len(shape) > 1:
            drawn = rng.normal(size=shape) / np.sqrt(np.prod(shape[:-1])) * (2 if "head" in name else 1)
        else:
            drawn = 0.1 * rng.normal(size=shape)
        found[name] = drawn.astype(array.dtype)
    return found


def compare_network(
    model: Segmenter, num_images: int = 2, threshold: float = 0.5
) -> tuple[Comparison, dict[str, np.ndarray]]:
    """Write a network of random weights, run it in onnxruntime and in jax; return how they differ, and onnxruntime's results."""
    model = dense_twin(model)
    weights, side = draw_weights(model), max(model.strides)
    size = (2 * side, 3 * side) if side <= 32 else (side, 2 * side)
    program = make_program(model, size, size, np.dtype(np.uint8))
    session = open_session(make_model(program, weights, threshold, {}, "the network").SerializeToString())
    images = np.random.default_rng(1).integers(0, 256, (num_images, *size, 3), np.uint8)
    found = run_session(session, images)
    return compare(found, jax.jit(program.run)(weights, images, np.float32(threshold))), found


def run_program(
    function: Callable, images: np.ndarray, weights: Mapping[str, np.ndarray] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return what onnxruntime and jax give for a function (weights, images) → one array."""
    weights = dict(weights or {})
    size, channels = images.shape[1:3], images.shape[3]
    program = Program(lambda w, x, t: {"result": function(w, x)}, size, size, channels, images.dtype)
    session = open_session(make_model(program, weights, 0.5, {}, "the program").SerializeToString())
    return run_session(session, images)["result"], np.asarray(function(weights, jnp.asarray(images)))
