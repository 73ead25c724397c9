"""Simplify a finished graph: normalizations move into convolutions, softmax becomes one node, and what nobody reads goes away."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from pyrseg_jax.export.onnx.graph import Graph, Node


def simplify(graph: Graph, outputs: Sequence[str]) -> None:
    """Simplify a graph in place; the outputs keep their names."""
    _find_softmax(graph)
    _remove_unused(graph, outputs)
    _fold_into_convolutions(graph, outputs)
    _remove_unused(graph, outputs)


def _remove_unused(graph: Graph, outputs: Sequence[str]) -> None:
    needed, kept = set(outputs), []
    for node in reversed(graph.nodes):
        if needed.intersection(node.outputs):
            kept.append(node)
            needed.update(node.inputs)
    graph.nodes = kept[::-1]
    graph.constants = {name: array for name, array in graph.constants.items() if name in needed}


def _find_softmax(graph: Graph) -> None:
    """Replace exp(x - max) / sum by Softmax, where all of it is along one axis."""
    producers = {name: node for node in graph.nodes for name in node.outputs}

    def behind(name: str, *ops: str) -> Node | None:
        """Follow the first inputs through nodes of these kinds, each of which may be absent but the last."""
        node = producers.get(name)
        for op in ops:
            if node is None:
                return None
            if node.op == op:
                if op == ops[-1]:
                    return node
                node = producers.get(node.inputs[0])
        return None

    for node in graph.nodes:
        exponent = producers.get(node.inputs[0]) if node.op == "Div" else None
        shifted = producers.get(exponent.inputs[0]) if exponent is not None and exponent.op == "Exp" else None
        if shifted is None or shifted.op != "Sub" or exponent is None:
            continue
        total, largest = (
            behind(node.inputs[1], "Reshape", "ReduceSum"),
            behind(shifted.inputs[1], "Reshape", "ReduceMax"),
        )
        if total is None or largest is None or total.inputs[0] != exponent.output:
            continue
        axes = graph.constants[total.inputs[1]]
        if largest.inputs == [shifted.inputs[0], total.inputs[1]] and len(axes) == 1:
            node.op, node.inputs, node.attributes = "Softmax", [shifted.inputs[0]], {"axis": int(axes[0])}


def _fold_into_convolutions(graph: Graph, outputs: Sequence[str]) -> None:
    """Move sums and products with a number per channel into the convolution before them."""
    uses = Counter(name for node in graph.nodes for name in node.inputs) + Counter(outputs)
    convolutions = {
        node.output: node for node in graph.nodes if node.op == "Conv" and node.inputs[1] in graph.constants
    }
    gone = []
    for node in graph.nodes:
        if node.op not in ("Add", "Sub", "Mul", "Div"):
            continue
        for place in (0, 1):
            convolution = convolutions.get(node.inputs[place])
            array = graph.constants.get(node.inputs[1 - place])
            if convolution is None or array is None or uses[convolution.output] != 1:
                continue
            folded = _folded(graph, convolution, node.op, array, is_first=place == 0)
            if folded:
                del convolutions[convolution.output]
                convolution.outputs = [node.output]
                convolutions[node.output] = convolution
                gone.append(node)
                break
    removed = set(map(id, gone))
    graph.nodes = [node for node in graph.nodes if id(node) not in removed]


def _folded(graph: Graph, convolution: Node, op: str, array: np.ndarray, is_first: bool) -> bool:
    """Change a convolution so that it computes an operation with a constant, too; return whether that was possible."""
    kernel = graph.constants[convolution.inputs[1]].astype(np.float64)
    channels, rank = kernel.shape[0], kernel.ndim
    shape = (1,) * (rank - array.ndim) + array.shape
    if (
        array.ndim > rank
        or shape not in ((1,) * rank, (1, channels, *(1,) * (rank - 2)))
        or (op == "Div" and not is_first)
    ):
        return False
    number = np.broadcast_to(array.reshape(-1), (channels,)).astype(np.float64)
    bias = np.zeros(channels)
    if len(convolution.inputs) == 3:
        bias = graph.constants[convolution.inputs[2]].astype(np.float64)
    if op in ("Mul", "Div"):
        factor = number if op == "Mul" else 1 / number
        kernel, bias = kernel * factor.reshape(-1, *(1,) * (rank - 1)), bias * factor
    elif op == "Add":
        bias = bias + number
    elif is_first:
        bias = bias - number
    else:
        kernel, bias = -kernel, number - bias
    both = (kernel.astype(np.float32), bias.astype(np.float32))
    convolution.inputs = [convolution.inputs[0], *map(graph.constant, both)]
    return True
