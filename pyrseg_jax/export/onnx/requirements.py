"""The packages that export to ONNX needs and this package does not require, imported when they are used."""

import importlib
from typing import Any

from pyrseg_jax.errors import UserError


def need(*names: str) -> list[Any]:
    """Import packages; raise UserError with the command that installs them if one is missing."""
    try:
        return [importlib.import_module(name) for name in names]
    except ImportError as error:
        raise UserError(
            f"--format=onnx needs the package {error.name or names[0]}, which is not installed: install the extra `onnx` "
            "(`pip install 'pyrseg-jax[onnx]'`)"
        ) from error
