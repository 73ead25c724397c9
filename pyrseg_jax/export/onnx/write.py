"""Export a run to ONNX: write the file, run it in onnxruntime, and keep it only if it gives the network's results."""

import dataclasses
import hashlib
import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict

import pyrseg_jax
from pyrseg_jax.data.image_space import ImageSpace, to_values
from pyrseg_jax.data.label_space import LabelSpace
from pyrseg_jax.errors import UserError
from pyrseg_jax.export.format import problem_of_weights
from pyrseg_jax.export.onnx.program import Program, Size, make_program
from pyrseg_jax.export.onnx.requirements import need
from pyrseg_jax.export.onnx.session import MAX_DIFFERENCE, compare, open_session, run_session, time_of
from pyrseg_jax.export.onnx.twin import dense_twin
from pyrseg_jax.export.target import cannot_write
from pyrseg_jax.models.segmenter import Segmenter
from pyrseg_jax.reporting.palette import colors_of
from pyrseg_jax.run import experiment
from pyrseg_jax.run.calibration import read_temperatures
from pyrseg_jax.run.config import Config
from pyrseg_jax.run.image_space import known_image_space
from pyrseg_jax.run.networks import make_evaluation_protocol
from pyrseg_jax.run.restore import Trained, restore
from pyrseg_jax.run.workdir import Workdir
from pyrseg_jax.storage.atomic import AtomicFile

log = logging.getLogger(__name__)


FORMAT = 1  # of the metadata
MAX_BYTES = 2**31 - 2**20  # of the format of ONNX files


class Precision(NamedTuple):
    """The number formats of a file: "float32" or "int8".

    weights, activations: of the kernels, and of the maps between layers.
    num_images: images of the evaluation split from which the ranges of the maps are measured.
    """

    weights: str = "float32"
    activations: str = "float32"
    num_images: int = 24

    @property
    def is_float(self) -> bool:
        """Return whether all numbers keep their format."""
        return self.weights == self.activations == "float32"


class Exported(NamedTuple):
    """A network that is about to be written, and what it gives for the images of the check.

    weights: by name.
    images, expected: one image of noise, and the network's results for it.
    """

    program: Program
    weights: dict[str, np.ndarray]
    threshold: float
    metadata: dict[str, str]
    name: str
    images: np.ndarray
    expected: Mapping[str, Any]


def export_onnx(
    config: Config, workdir: Workdir, path: Path, run: str, size: Size, step: int | None, precision: Precision
) -> dict:
    """Write an ONNX file for images of one size, and compare it with the network.

    Args:
      config, workdir: the run.
      path: of the file, see `target.check_target`.
      run: identity of the run.
      size: height and width of the images.
      step: of the checkpoint; None: the newest.
      precision: number formats of the file.

    Returns:
      What was measured: `megabytes`, `write_seconds`, `load_seconds`, `milliseconds` per image, `same_labels` and
      `largest_difference`; for 8 bits also `float_megabytes`, `float_milliseconds`, and `miou` and `float_miou` of the
      evaluation split, None where it cannot be read.

    Raises:
      UserError: if the extra is not installed, the network has an operation without a counterpart, the file cannot be written, or
        it does not give the network's results.
    """
    need("onnx", "onnxruntime")
    from pyrseg_jax.export.onnx.eight_bits import check_precision, write_eight_bits
    from pyrseg_jax.export.onnx.model import OPSET, make_model

    scored = check_precision(config, workdir, precision)
    found = prepare(config, workdir, run, size, step)
    start = time.perf_counter()
    model = make_model(found.program, found.weights, found.threshold, found.metadata, found.name)
    num_bytes = model.ByteSize()
    if num_bytes > MAX_BYTES:
        raise UserError(
            f"--format=onnx: the file would have {num_bytes / 1e9:.1f} GB, above the 2 GB that the format allows"
        )
    content = model.SerializeToString()
    measured = {"write_seconds": time.perf_counter() - start}
    try:
        with AtomicFile(path) as file:
            file.file.write(content)
            file.file.flush()
            measured |= _check(file.partial, found, "float32")
            if not precision.is_float:
                measured |= write_eight_bits(file, model, found, scored, precision)
            file.commit()
    except OSError as error:
        raise cannot_write(path, error) from error
    log.info(
        "%s: %.1f MB, opset %d, images of %d × %d, written in %.1f s, read in %.1f s; in onnxruntime, %.4f %% of its labels equal "
        "the network's, its probabilities differ by at most %.1e, and an image takes %.0f ms",
        *(path, measured["megabytes"], OPSET, *size, measured["write_seconds"], measured["load_seconds"]),
        *(100 * measured["same_labels"], measured["largest_difference"], measured["milliseconds"]),
    )
    return measured


def prepare(config: Config, workdir: Workdir, run: str, size: Size, step: int | None) -> Exported:
    """Restore a run and compute what its network gives for the images of the check; arguments as for `export_onnx`."""
    label_space, image_space = workdir.read_label_space(), known_image_space(config, workdir)
    if config.model.dtype != "float32":
        log.info("the file computes in float32, and not in %s as the run does", config.model.dtype)
        config = dataclasses.replace(config, model=dataclasses.replace(config.model, dtype="float32"))
    model = experiment.make_model(config, label_space)
    trained = restore(config, model, workdir, jax.sharding.SingleDeviceSharding(jax.local_devices()[0]), step)
    weights = {"/".join(at): np.asarray(x) for at, x in flatten_dict(jax.device_get(trained.variables)).items()}
    problem = problem_of_weights(weights)
    if problem:
        raise UserError(f"this checkpoint cannot be exported: {problem}; choose an earlier one with --step")
    log.info("exporting step %d for images of %d × %d", trained.step, *size)
    program = make_program(dense_twin(model), size, network_size(config, size), image_space.dtype)
    about = describe(config, workdir, model, trained, weights, program, (label_space, image_space), run)
    noise = np.random.default_rng(0).integers(0, 256, (1, *size, model.channels), np.uint8).astype(program.dtype)
    threshold = config.evaluation.threshold
    expected = jax.device_get(jax.jit(program.run)(weights, noise, np.float32(threshold)))
    name = f"the backbone {config.model.backbone} with the context {config.model.context}"
    return Exported(program, weights, threshold, about, name, noise, expected)


def network_size(config: Config, size: Size) -> Size:
    """Return the size at which the run's protocol shows images of a size to the network: as a whole, and not mirrored."""
    protocol = make_evaluation_protocol(config)
    if len(protocol.scales) > 1 or protocol.is_mirrored or protocol.window_px is not None:
        log.warning(
            "the file predicts one view of each image, as a whole, and not the views of the protocol %s: its scores differ from "
            "those of `pyrseg evaluate`",
            protocol.name,
        )
    return protocol.sizes(*size)[protocol.scales.index(1.0)]


def describe(
    config: Config,
    workdir: Workdir,
    model: Segmenter,
    trained: Trained,
    weights: Mapping[str, np.ndarray],
    program: Program,
    spaces: tuple[LabelSpace, ImageSpace],
    run: str,
) -> dict[str, str]:
    """Return the metadata of a file: a text for each name, JSON where it is more than a word or a number."""
    label_space, image_space = spaces
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode() + np.ascontiguousarray(weights[name]).tobytes())
    values: dict[str, Any] = {
        "format": FORMAT,
        "pyrseg_jax": getattr(pyrseg_jax, "__version__", ""),
        "classes": label_space.names,
        "colors": colors_of(label_space).tolist(),
        "threshold": config.evaluation.threshold,
        "strides": model.prediction_strides[-model.num_predicted_levels :],
        "size": program.size,
        "network_size": program.network_size,
        "protocol": make_evaluation_protocol(config).describe(),
        "backbone": config.model.backbone,
        "context": config.model.context,
        "representation": config.model.representation,
        "step": trained.step,
        "run": run,
        "weights_sha256": digest.hexdigest(),
        "precision": "float32",
    }
    temperatures = read_temperatures(config, workdir, trained, model.num_predicted_levels)
    if temperatures is not None:
        values["temperatures"] = temperatures
    if not image_space.is_photograph:
        values["image_space"] = to_values(image_space)
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}


def _check(path: Path, found: Exported, what: str) -> dict[str, float]:
    """Run a file in onnxruntime; raise UserError if it does not give the network's results."""
    start = time.perf_counter()
    session = open_session(path)
    load_seconds = time.perf_counter() - start
    comparison = compare(run_session(session, found.images), found.expected)
    if not comparison.is_close:
        raise UserError(
            f"--format=onnx: the {what} file of {found.name} was not kept, because it does not give the network's results in "
            f"onnxruntime: its probabilities differ by {comparison.largest_difference:.1e} (at most {MAX_DIFFERENCE:.0e} is "
            f"rounding), and {100 * comparison.same_labels:.2f} % of its labels are the same; export with --format=zip, which jax "
            "runs"
        )
    return {
        "megabytes": path.stat().st_size / 1e6,
        "load_seconds": load_seconds,
        "milliseconds": time_of(session, found.images),
        **comparison._asdict(),
    }
