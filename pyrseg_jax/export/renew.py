"""Renew an exported file: write its programs again with the JAX that is installed now, and check that they compute the same."""

import time
from pathlib import Path

import jax
import numpy as np

from pyrseg_jax.errors import UserError, naming_file
from pyrseg_jax.export.format import Exported
from pyrseg_jax.export.read import read_export
from pyrseg_jax.export.write import pack, serialize

_KEPT = ("step", "initialisation", "run", "temperatures", "threshold")


def renew(source: Path, target: Path) -> dict[str, float]:
    """Write the programs of an exported file again, read the new file, and compare the results of both on noise.

    The weights stay as they are. The programs are those of the file, in the form that this JAX writes.

    Args:
      source: path of the file.
      target: path of the new file, see `target.check_target`; it may be the same.

    Returns:
      The measured `megabytes` and `seconds`; `same_labels`, the share of equal labels, and `largest_difference`, of probabilities.

    Raises:
      UserError: if this JAX does not read the file any more, or the new file computes something else.
      OSError: if the new file cannot be written.
    """
    start = time.perf_counter()
    old = read_export(source)
    advice = "export the model again from its run, with `pyrseg export --workdir=RUN`"
    with naming_file(str(source), "cannot be written again with this jax", advice):
        programs = {
            size: serialize(program, old.weights, size, old.image_space) for size, program in old.programs.items()
        }
    about = {name: old.about[name] for name in _KEPT if old.about.get(name) is not None}
    expected = _results_on_noise(old)
    pack(target, old.weights, programs, (old.label_space, old.image_space), tuple(old.about["strides"]), about)
    found = _results_on_noise(read_export(target))
    same = float((found["labels"] == expected["labels"]).mean())
    difference = float(np.abs(found["probs"] - expected["probs"]).max())
    if same < 1 or difference > 1e-6:
        raise UserError(
            f"{target} does not compute what {source} does: {100 * (1 - same):.4f} % of the labels differ, and probabilities by up "
            f"to {difference:.1e}; do not use it, and {advice}"
        )
    return {
        "megabytes": target.stat().st_size / 1e6,
        "seconds": time.perf_counter() - start,
        "same_labels": same,
        "largest_difference": difference,
    }


def _results_on_noise(exported: Exported) -> dict:
    """Run the first program on an image of noise."""
    (height, width), run = next(iter(exported.programs.items()))
    shape = (1, height, width, exported.image_space.channels)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8).astype(exported.image_space.dtype)
    return jax.device_get(run(exported.weights, images))
