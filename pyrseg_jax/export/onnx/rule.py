"""The form of a rule: how one operation of jax becomes nodes of ONNX."""

from collections.abc import Callable
from typing import Any, TypeAlias

from pyrseg_jax.export.onnx.values import Value

# (converter, parameters of the operation, its inputs) → its outputs.
Rule: TypeAlias = Callable[[Any, dict[str, Any], list[Value]], list[Value]]


class Unsupported(Exception):
    """An operation, or a form of one, that has no rule; the message names it."""
