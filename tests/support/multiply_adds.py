"""Count the multiply-adds of a network from its program."""

import numpy as np


def multiply_adds(program, only_convolutions: bool = False) -> float:
    """Count the multiply-adds of all convolutions and matrix products of a program, batched products included.

    Interpolation is made of matrix products, too. The zeros that a
    transposed convolution puts between the positions of its input are not counted; those around a map are, as is usual.

    Args:
      program: the `jaxpr` of what `jax.make_jaxpr` returns.
      only_convolutions: whether to leave out the matrix products, 1×1 convolutions that are written as such among them.
    """
    total = 0.0
    for step in program.eqns:
        if step.primitive.name == "conv_general_dilated":
            dimensions = step.params["dimension_numbers"].rhs_spec
            kernel = step.invars[1].aval.shape
            taps = np.prod(kernel) / kernel[dimensions[0]] / np.prod(step.params["lhs_dilation"])
            total += np.prod(step.outvars[0].aval.shape) * taps
        elif step.primitive.name == "dot_general" and not only_convolutions:
            ((contracted, _), _) = step.params["dimension_numbers"]
            total += np.prod(step.outvars[0].aval.shape) * np.prod([step.invars[0].aval.shape[i] for i in contracted])
        elif step.primitive.name == "scan":
            total += step.params["length"] * multiply_adds(step.params["jaxpr"].jaxpr, only_convolutions)
        elif step.primitive.name == "cond":  # of programs that differ by platform, and compute the same
            total += multiply_adds(step.params["branches"][-1].jaxpr, only_convolutions)
        else:
            parts = [value for value in step.params.values() if hasattr(value, "jaxpr") or hasattr(value, "eqns")]
            total += sum(multiply_adds(getattr(part, "jaxpr", part), only_convolutions) for part in parts)
    return total
