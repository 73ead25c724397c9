"""Read the metadata of ONNX and LiteRT files."""

import importlib
import json
from pathlib import Path
from typing import Any

from pyrseg_jax.export.onnx.requirements import need

SUFFIX, LITERT = ".onnx", ".tflite"
LITERT_SCHEMA = "ai_edge_litert.schema_py_generated"
LITERT_NAME = "pyrseg_jax"  # of the metadata in a LiteRT file, which are JSON


def read_metadata(path: Path) -> dict[str, str]:
    """Return the metadata of an ONNX file, a text for each name. A file that is damaged raises one of many errors."""
    (onnx,) = need("onnx")
    return {given.key: given.value for given in onnx.load(path).metadata_props}


def read_litert_metadata(path: Path) -> dict[str, str]:
    """Return the metadata of a LiteRT file. A file that is damaged raises one of many errors."""
    schema: Any = importlib.import_module(LITERT_SCHEMA)
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes(), 0))
    (entry,) = [entry for entry in model.metadata if entry.name == LITERT_NAME.encode()]
    return json.loads(bytes(model.buffers[entry.buffer].data))
