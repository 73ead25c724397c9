"""Make an ONNX model of a program of jax: its graph, its inputs and outputs, and the metadata."""

import logging
from collections.abc import Mapping

import numpy as np
import onnx
from jax import export as jax_export
from onnx import helper, numpy_helper

import pyrseg_jax
from pyrseg_jax.errors import UserError
from pyrseg_jax.export.onnx.convert import Converter
from pyrseg_jax.export.onnx.graph import Graph, Node, tensor
from pyrseg_jax.export.onnx.program import Program, trace
from pyrseg_jax.export.onnx.rule import Unsupported
from pyrseg_jax.export.onnx.simplify import simplify
from pyrseg_jax.export.onnx.values import constant_of

log = logging.getLogger(__name__)

OPSET = 18  # onnxruntime reads it since 1.14
IR_VERSION = 8  # that of the opset
IMAGES, THRESHOLD = "image", "threshold"
BATCH = "N"  # name of the axis of images in the file


def make_model(
    program: Program, weights: Mapping[str, np.ndarray], threshold: float, metadata: Mapping[str, str], name: str
) -> onnx.ModelProto:
    """Make an ONNX model.

    Args:
      program: what it computes.
      weights: arrays by name.
      threshold: τ, the value of the input `threshold` where none is given.
      metadata: texts by name.
      name: what the network is called in errors.

    Raises:
      UserError: naming the operation that has no rule.
    """
    weights = dict(sorted(weights.items()))
    (count,) = jax_export.symbolic_shape("n")
    try:
        jaxpr, names = trace(program, weights, count)
    except Exception as error:  # a network may decide by the number of images, and each way raises its own error
        log.warning(
            "the file takes one image at a time: the program cannot be written for any number (%s)",
            type(error).__name__,
        )
        count = 1
        jaxpr, names = trace(program, weights, count)
    graph = Graph(count, IMAGES)
    images = tensor(IMAGES, (count, *program.size, program.channels), program.dtype)
    inputs = [tensor(THRESHOLD, (), np.float32), images, *map(constant_of, weights.values())]
    try:
        found = Converter(graph).run(jaxpr.jaxpr, jaxpr.consts, inputs)
    except Unsupported as error:
        raise UserError(
            f"--format=onnx: {name} uses what has no counterpart in ONNX here ({error}): export it with --format=zip, which jax "
            "runs, or train another backbone or context (docs/guide/onnx.md)"
        ) from error
    for output, value in zip(names, found, strict=True):
        graph.nodes.append(Node("Identity", [graph.full(value, range(value.rank))], [output], {}))
    simplify(graph, names)
    outputs = [_declare(output, value.dtype, value.shape) for output, value in zip(names, found, strict=True)]
    declared = [_declare(IMAGES, program.dtype, images.shape)]
    if any(THRESHOLD in node.inputs for node in graph.nodes):
        declared.append(_declare(THRESHOLD, np.dtype(np.float32), ()))
        graph.constants[THRESHOLD] = np.array(threshold, np.float32)
    return _assemble(graph, declared, outputs, metadata)


def _declare(name: str, dtype: np.dtype, shape: tuple) -> onnx.ValueInfoProto:
    sides = [int(side) if isinstance(side, int | np.integer) else BATCH for side in shape]
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), sides)


def _assemble(graph: Graph, inputs: list, outputs: list, metadata: Mapping[str, str]) -> onnx.ModelProto:
    nodes = []
    for number, node in enumerate(graph.nodes):
        attributes = dict(node.attributes)
        if node.op == "Cast":
            attributes["to"] = helper.np_dtype_to_tensor_dtype(np.dtype(attributes["to"]))
        nodes.append(helper.make_node(node.op, node.inputs, node.outputs, f"{node.op}_{number}", **attributes))
    initializers = [numpy_helper.from_array(array, name) for name, array in graph.constants.items()]
    model = helper.make_model(
        helper.make_graph(nodes, "pyrseg_jax", inputs, outputs, initializers),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="pyrseg_jax",
        producer_version=getattr(pyrseg_jax, "__version__", ""),
    )
    helper.set_model_props(model, dict(metadata))
    return model
