"""Files with 8-bit weights, or with 8-bit weights and maps, and what this costs."""

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from pyrseg_jax.errors import UserError
from pyrseg_jax.export.onnx.requirements import need
from pyrseg_jax.export.onnx.scores import Scored, open_images, score
from pyrseg_jax.export.onnx.session import compare, open_session, run_session, time_of
from pyrseg_jax.run.config import Config
from pyrseg_jax.run.workdir import Workdir
from pyrseg_jax.storage.atomic import AtomicFile

log = logging.getLogger(__name__)

MIN_WEIGHTS = 256  # numbers of an array that is worth 8 bits
# The operators whose inputs and weights become 8 bits, where both do.
QUANTIZED = ["Conv", "MatMul"]


def check_precision(config: Config, workdir: Workdir, precision: Any) -> Scored | None:
    """Open the images that measure what 8 bits cost; None if they cannot be read and only the weights change.

    Raises:
      UserError: if the ranges of maps must be measured, and there are no images.
    """
    if precision.is_float:
        return None
    try:
        return open_images(config, workdir)
    except UserError as error:
        if precision.activations == "int8":
            raise UserError(f"--activations=int8 measures the ranges of maps on images: {error}") from error
        log.warning("the mIoU of the file is not measured: %s", error)
        return None


def write_eight_bits(
    file: AtomicFile, model: onnx.ModelProto, found: Any, scored: Scored | None, precision: Any
) -> dict:
    """Replace the content of a float file by its 8-bit version, and measure both.

    Args:
      file: the file, which holds the float version.
      model: the float version.
      found: what is exported, see `write.Exported`.
      scored: the images that are scored.
      precision: see `write.Precision`.

    Returns:
      `megabytes`, `milliseconds`, `same_labels` and `largest_difference` of the new content, and what the float version had as
      `float_megabytes` and `float_milliseconds`; `miou` and `float_miou`.
    """
    plain = open_session(file.partial)
    if precision.activations == "int8":
        assert scored is not None, "it was checked that there are images"
        content = quantize_maps(file.partial, _calibration(scored, found, precision.num_images))
        content = with_metadata(content, "int8 weights and activations")
    else:
        content = with_metadata(quantize_weights(model), "int8 weights")
    float_bytes = file.partial.stat().st_size
    file.file.seek(0)
    file.file.truncate()
    file.file.write(content.SerializeToString())
    file.file.flush()
    session = open_session(file.partial)
    measured: dict[str, Any] = {
        "megabytes": file.partial.stat().st_size / 1e6,
        "milliseconds": time_of(session, found.images),
        **compare(run_session(session, found.images), found.expected)._asdict(),
        "float_megabytes": float_bytes / 1e6,
        "float_milliseconds": time_of(plain, found.images),
        "miou": None,
        "float_miou": None,
    }
    if scored is not None:
        log.info("scoring both versions on %d images of %s", len(scored.source), scored.split)
        measured["float_miou"], measured["miou"] = score(scored, [plain, session], found.program.size)
        log.info(
            "mIoU on %s: %.2f in float32, %.2f with 8 bits (%+.2f)",
            *(scored.split, 100 * measured["float_miou"], 100 * measured["miou"]),
            100 * (measured["miou"] - measured["float_miou"]),
        )
    log.info(
        "size %.1f MB in float32, %.1f MB with 8 bits; an image takes %.0f ms and %.0f ms",
        *(measured["float_megabytes"], measured["megabytes"]),
        *(measured["float_milliseconds"], measured["milliseconds"]),
    )
    return measured


def quantize_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model that stores kernels as int8 with a scale for each output channel, and computes in float32.

    Weights of fixed interpolations and means stay as they are: none of them is negative, which no trained kernel is.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    arrays = {initializer.name: initializer for initializer in result.graph.initializer}
    done: dict[tuple[str, int], str] = {}
    nodes, extra = [], []
    for node in result.graph.node:
        for place, axis in _kernels_of(node, arrays):
            name = node.input[place]
            array = numpy_helper.to_array(arrays[name])
            if array.size < MIN_WEIGHTS or array.min() >= 0:
                continue
            if (name, axis) not in done:
                done[name, axis] = f"{name}_from_{axis}"
                extra += _stored(name, array, axis)
                inputs = [f"{name}_int8_{axis}", f"{name}_scale_{axis}"]
                nodes.append(helper.make_node("DequantizeLinear", inputs, [done[name, axis]], axis=axis))
            node.input[place] = done[name, axis]
        nodes.append(node)
    used = {name for node in nodes for name in node.input} | {given.name for given in result.graph.input}
    kept = [initializer for initializer in (*result.graph.initializer, *extra) if initializer.name in used]
    del result.graph.node[:], result.graph.initializer[:]
    result.graph.node.extend(nodes)
    result.graph.initializer.extend(kept)
    return result


def _kernels_of(node: onnx.NodeProto, arrays: dict) -> Iterator[tuple[int, int]]:
    """Yield the input that is a constant kernel, and the axis of its output channels."""
    if node.op_type == "Conv" and node.input[1] in arrays:
        yield 1, 0
    elif node.op_type == "ConvTranspose" and node.input[1] in arrays:
        yield 1, 1
    elif node.op_type == "MatMul":
        for place in (0, 1):
            if node.input[place] in arrays and len(arrays[node.input[place]].dims) == 2:
                yield place, place


def _stored(name: str, array: np.ndarray, axis: int) -> list[onnx.TensorProto]:
    others = tuple(i for i in range(array.ndim) if i != axis)
    scale = np.maximum(np.abs(array).max(others), np.finfo(np.float32).tiny) / 127
    shape = tuple(-1 if i == axis else 1 for i in range(array.ndim))
    numbers = np.clip(np.round(array / scale.reshape(shape)), -127, 127).astype(np.int8)
    return [
        numpy_helper.from_array(numbers, f"{name}_int8_{axis}"),
        numpy_helper.from_array(scale.astype(np.float32), f"{name}_scale_{axis}"),
    ]


def quantize_maps(path: Path, images: Iterator[np.ndarray]) -> onnx.ModelProto:
    """Return a model whose kernels and maps are int8 and uint8 around convolutions and matrix products.

    Args:
      path: of the float version.
      images: batches of one image, from which the ranges of maps are measured.
    """
    (tools,) = need("onnxruntime.quantization")

    class Images(tools.CalibrationDataReader):  # pyright: ignore[reportUntypedBaseClass]
        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(images, None)
            return None if image is None else {"image": image}

    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        model = onnx.load(path)
        arrays = {given.name: numpy_helper.to_array(given) for given in model.graph.initializer}
        fixed = [
            node.name
            for node in model.graph.node
            if node.op_type == "MatMul" and any((arrays[name] >= 0).all() for name in node.input if name in arrays)
        ]
        onnx.save(model, source)
        with _without_advice():
            tools.quantize_static(
                str(source),
                str(target),
                Images(),
                quant_format=tools.QuantFormat.QDQ,
                op_types_to_quantize=QUANTIZED,
                nodes_to_exclude=fixed,
                per_channel=True,
                activation_type=tools.QuantType.QUInt8,
                weight_type=tools.QuantType.QInt8,
            )
        return onnx.load(target)


@contextlib.contextmanager
def _without_advice() -> Iterator[None]:
    """Keep the advice of onnxruntime's tools, which log to the root logger and to stderr, out of the log."""
    (runtime,) = need("onnxruntime")
    root = logging.getLogger()

    def is_ours(record: logging.LogRecord) -> bool:
        return record.name != "root"

    root.addFilter(is_ours)
    runtime.set_default_logger_severity(3)
    try:
        yield
    finally:
        root.removeFilter(is_ours)
        runtime.set_default_logger_severity(2)


def with_metadata(model: onnx.ModelProto, precision: str) -> onnx.ModelProto:
    """Return a model whose metadata name its number formats."""
    values = {given.key: given.value for given in model.metadata_props} | {"precision": precision}
    del model.metadata_props[:]
    helper.set_model_props(model, values)
    return model


def _calibration(scored: Scored, found: Any, num_images: int) -> Iterator[np.ndarray]:
    """Yield images spread over the split, one at a time."""
    count = min(max(num_images, 1), len(scored.source))
    log.info("measuring the ranges of maps on %d images of %s", count, scored.split)
    for index in np.linspace(0, len(scored.source) - 1, count).astype(int).tolist():
        yield scored.image(index, found.program.size)[None]
