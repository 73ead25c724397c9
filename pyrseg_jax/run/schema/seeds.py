"""The range of seeds."""

MAX_SEED = 2**32 - 1  # JAX takes 32 bits
