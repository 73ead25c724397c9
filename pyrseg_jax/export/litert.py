"""Export a run to LiteRT (TensorFlow Lite), for phones: from StableHLO, and without TensorFlow."""

import importlib
import json
import logging
import time
from pathlib import Path
from typing import Any

import flatbuffers
import jax
import jax.numpy as jnp
import numpy as np

from pyrseg_jax.errors import UserError, reason_of
from pyrseg_jax.export.onnx.metadata import LITERT_NAME, LITERT_SCHEMA
from pyrseg_jax.export.onnx.program import Program, Size
from pyrseg_jax.export.onnx.session import MAX_DIFFERENCE, compare
from pyrseg_jax.export.onnx.write import Exported, prepare
from pyrseg_jax.export.target import cannot_write
from pyrseg_jax.run.config import Config
from pyrseg_jax.run.workdir import Workdir
from pyrseg_jax.storage.atomic import AtomicFile

log = logging.getLogger(__name__)

CONVERTER, INTERPRETER = "litert_converter.converter_api_ext", "ai_edge_litert.interpreter"
SIGNATURE = "serving_default"
# The converter's package asks for an old typing_extensions, for tools of its own that are not used here.
INSTALL = "`pip install 'pyrseg-jax[litert]'` and `pip install --no-deps litert-converter`"


def export_litert(config: Config, workdir: Workdir, path: Path, run: str, size: Size, step: int | None) -> dict:
    """Write a LiteRT file for one image of one size at a time, run it, and compare it with the network.

    τ is fixed in the file. Arguments and results as for `onnx.write.export_onnx`.

    Raises:
      UserError: if the packages are not installed, the converter refuses the network, the file cannot be written, or it does not
        give the network's results.
    """
    for package in (CONVERTER, INTERPRETER):
        _need(package)
    found = prepare(config, workdir, run, size, step)
    start = time.perf_counter()
    content = convert(found.program, found.weights, found.threshold, found.metadata, found.name)
    write_seconds = time.perf_counter() - start
    try:
        with AtomicFile(path) as file:
            file.file.write(content)
            file.file.flush()
            measured = {"write_seconds": write_seconds, **_check(file.partial, found)}
            file.commit()
    except OSError as error:
        raise cannot_write(path, error) from error
    log.info(
        "%s: %.1f MB, images of %d × %d, written in %.1f s, read in %.1f s; in LiteRT, %.4f %% of its labels equal the network's, "
        "its probabilities differ by at most %.1e, and an image takes %.0f ms",
        *(path, measured["megabytes"], *size, write_seconds, measured["load_seconds"]),
        *(100 * measured["same_labels"], measured["largest_difference"], measured["milliseconds"]),
    )
    return measured


def _need(name: str) -> Any:
    """Import a module of the converter or of LiteRT."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f"--format=litert needs the package {error.name}, which is not installed: run {INSTALL}"
        ) from error


def convert(program: Program, weights: dict[str, np.ndarray], threshold: float, metadata: dict, name: str) -> bytes:
    """Return the content of a file; raise UserError, with the converter's reason, if it refuses the network `name`."""
    api, ir, passes = _need(CONVERTER), _need("litert_converter.mlir.ir"), _need("litert_converter.mlir.passmanager")
    images = jax.ShapeDtypeStruct((1, *program.size, program.channels), program.dtype)

    def run(image):
        return program.run(weights, image, jnp.float32(threshold))

    # A program for TPUs has none of the CPU's work-arounds.
    text = jax.jit(run).trace(images).lower(lowering_platforms=("tpu",)).as_text()
    context = ir.Context()
    api.prepare_mlir_context(context)
    with context:
        module = ir.Module.parse(text)
        api.set_signature(module.operation, SIGNATURE, ["image"], sorted(jax.eval_shape(run, images)))
        try:
            api.run_convert_to_tfl_passes(module, passes.PassManager(), api.ConvertToTFLConfig())
            content = api.export_flatbuffer_to_bytes(module.operation)
        except Exception as error:  # the converter raises its own types
            raise UserError(
                f"--format=litert: the converter does not take {name} ({reason_of(error)}): export it with --format=onnx"
            ) from error
    return _with_metadata(content, metadata)


def _with_metadata(content: bytes, metadata: dict[str, str]) -> bytes:
    """Add metadata to a file: a buffer with a name."""
    schema = _need(LITERT_SCHEMA)
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = np.frombuffer(json.dumps(metadata).encode(), np.uint8)
    entry.name, entry.buffer = LITERT_NAME, len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or []), entry]
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def open_runner(content: bytes, name: str) -> Any:
    """Return the function (image=…) → results by name of a file; raise UserError, naming the network, if LiteRT cannot run it."""
    try:
        runner = _need(INTERPRETER).Interpreter(model_content=content).get_signature_runner(SIGNATURE)
        inputs = runner.get_input_details()["image"]
        runner(image=np.zeros(inputs["shape"], inputs["dtype"]))
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"--format=litert: LiteRT cannot run the file of {name} ({reason_of(error)}): export it with --format=onnx"
        ) from error
    return runner


def _check(path: Path, found: Exported) -> dict[str, float]:
    start = time.perf_counter()
    runner = open_runner(path.read_bytes(), found.name)
    load_seconds = time.perf_counter() - start
    comparison = compare(runner(image=found.images), found.expected)
    if not comparison.is_close:
        raise UserError(
            f"--format=litert: the file of {found.name} was not kept, because it does not give the network's results in LiteRT: "
            f"its probabilities differ by {comparison.largest_difference:.1e} (at most {MAX_DIFFERENCE:.0e} is rounding), and "
            f"{100 * comparison.same_labels:.2f} % of its labels are the same; export with --format=onnx"
        )
    durations = []
    for _ in range(3):
        start = time.perf_counter()
        runner(image=found.images)
        durations.append(1000 * (time.perf_counter() - start))
    return {
        "megabytes": path.stat().st_size / 1e6,
        "load_seconds": load_seconds,
        "milliseconds": float(np.median(durations)),
        **comparison._asdict(),
    }
