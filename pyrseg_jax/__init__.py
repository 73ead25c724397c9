"""Pyramidal semantic segmentation in JAX: *Specialize and Fuse* (Hsiao et al., ICCV 2021).

`pyrseg_jax.pyramid` holds the paper's algebra and `pyrseg_jax.models` the networks. The paper map
(`docs/guide/paper_map.md`) leads from each equation to the function that computes it and to the test that checks it. To use a
trained model, call `pyrseg_jax.load(path)`.
"""

# The one place where the version is written: pyproject.toml and `pyrseg --version` read it from here.
__version__ = "0.1.0"


def load(path, step: int | None = None):
    """Load a trained model: `load(path)(image).labels`.

    `pyrseg_jax.api.load` documents the arguments. Importing this package does not import jax: the processes that decode images
    import it, too. The first call of this function does.

    Args:
      path: a run's working directory, a checkpoint folder, or an exported file.
      step: the checkpoint to load; by default the newest one.

    Returns:
      A `pyrseg_jax.api.Predictor`.
    """
    from pyrseg_jax import api

    return api.load(path, step)
