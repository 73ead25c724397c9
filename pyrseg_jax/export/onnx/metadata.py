"""Read the metadata of an ONNX file."""

from pathlib import Path

from pyrseg_jax.export.onnx.requirements import need

SUFFIX = ".onnx"


def read_metadata(path: Path) -> dict[str, str]:
    """Return the metadata of an ONNX file, a text for each name. A file that is damaged raises one of many errors."""
    (onnx,) = need("onnx")
    return {given.key: given.value for given in onnx.load(path).metadata_props}
