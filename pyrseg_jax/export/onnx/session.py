"""Run an ONNX file with onnxruntime alone, and compare it with the network."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pyrseg_jax.export.onnx.requirements import need

# Above this difference of probabilities, a file does not hold the network. Chosen: rounding alone has reached 1e-5, and a wrong
# operation changes probabilities by tenths.
MAX_DIFFERENCE = 1e-3
# Share of pixels whose class must be the same. Chosen: a cell whose probability of being a unit-cell is τ but for rounding may go
# to another level.
MIN_SAME_LABELS = 0.999


class Comparison(NamedTuple):
    """How results of a file differ from those of the network.

    same_labels: share of pixels with the same class.
    largest_difference: of class and unity probabilities of all levels.
    """

    same_labels: float
    largest_difference: float

    @property
    def is_close(self) -> bool:
        """Return whether only rounding differs."""
        return self.largest_difference <= MAX_DIFFERENCE and self.same_labels >= MIN_SAME_LABELS


def open_session(model: Path | str | bytes) -> Any:
    """Open an ONNX file in onnxruntime, for the CPU."""
    (runtime,) = need("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # it would warn that τ can be changed
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    source = model if isinstance(model, bytes) else str(model)
    return runtime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def run_session(session: Any, images: np.ndarray) -> dict[str, np.ndarray]:
    """Return all results for a batch of images, by name."""
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"image": images}), strict=True))


def compare(found: Mapping[str, np.ndarray], expected: Mapping[str, Any]) -> Comparison:
    """Compare results with those of the network for the same images."""
    maps = [name for name in expected if name.startswith(("semantic_", "unity_"))]
    differences = [float(np.abs(found[name] - np.asarray(expected[name])).max()) for name in maps]
    return Comparison(float((found["labels"] == np.asarray(expected["labels"])).mean()), max(differences))


def time_of(session: Any, images: np.ndarray, rounds: int = 3) -> float:
    """Return the median of the milliseconds that one image takes."""
    durations = []
    for _ in range(rounds):
        start = time.perf_counter()
        session.run(["labels"], {"image": images})
        durations.append(1000 * (time.perf_counter() - start) / len(images))
    return float(np.median(durations))
