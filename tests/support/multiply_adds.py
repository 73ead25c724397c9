"""Count the multiply-adds of a network from its program, or layer by layer."""

import flax.linen as nn
import jax
import numpy as np


def multiply_adds(program) -> float:
    """Count the multiply-adds of all convolutions and matrix products of a program, batched products included.

    Interpolation is made of matrix products, too. To compare with counts of layers, use `multiply_adds_of_layers`. The zeros that a
    transposed convolution puts between the positions of its input are not counted; those around a map are, as is usual.

    Args:
      program: the `jaxpr` of what `jax.make_jaxpr` returns.
    """
    total = 0.0
    for step in program.eqns:
        if step.primitive.name == "conv_general_dilated":
            dimensions = step.params["dimension_numbers"].rhs_spec
            kernel = step.invars[1].aval.shape
            taps = np.prod(kernel) / kernel[dimensions[0]] / np.prod(step.params["lhs_dilation"])
            total += np.prod(step.outvars[0].aval.shape) * taps
        elif step.primitive.name == "dot_general":
            ((contracted, _), _) = step.params["dimension_numbers"]
            total += np.prod(step.outvars[0].aval.shape) * np.prod([step.invars[0].aval.shape[i] for i in contracted])
        elif step.primitive.name == "scan":
            total += step.params["length"] * multiply_adds(step.params["jaxpr"].jaxpr)
        elif step.primitive.name == "cond":  # of programs that differ by platform, and compute the same
            total += multiply_adds(step.params["branches"][-1].jaxpr)
        else:
            parts = [value for value in step.params.values() if hasattr(value, "jaxpr") or hasattr(value, "eqns")]
            total += sum(multiply_adds(getattr(part, "jaxpr", part)) for part in parts)
    return total


def multiply_adds_of_layers(model: nn.Module, variables: dict, height: int, width: int) -> dict[str, float]:
    """Count the multiply-adds of the convolutions in each part of a network, for one image; nothing is computed.

    Args:
      model: a segmenter.
      variables: shapes of its variables.
      height, width: of the image in pixels.

    Returns:
      the counts by the name of the part, such as "backbone" or "context".
    """
    counts: dict[str, float] = {}

    def count(call, args, kwargs, context):
        found = call(*args, **kwargs)
        module = context.module
        if isinstance(module, nn.Conv) and context.method_name == "__call__":
            kernel = module.variables["params"]["kernel"].shape
            counts[module.path[0]] = counts.get(module.path[0], 0.0) + np.prod(found.shape) * np.prod(kernel[:-1])
        return found

    images = jax.ShapeDtypeStruct((1, height, width, 3), np.float32)
    with nn.intercept_methods(count):
        jax.eval_shape(lambda v, x: model.apply(v, x, False), variables, images)
    return counts
