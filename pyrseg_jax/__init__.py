"""Pyramidal semantic segmentation in JAX: *Specialize and Fuse* (Hsiao et al., ICCV 2021).

The paper's algebra is in `pyrseg_jax.pyramid`, the networks are in `pyrseg_jax.models`; `docs/guide/paper_map.md`
leads from each equation to the function that computes it and to the test that checks it. A trained model is used by
`pyrseg_jax.load(path)`.
"""


def load(path, step: int | None = None):
    """Load a trained model, of a run's folder, a checkpoint or an exported file: `load(path)(image).labels`.

    See `pyrseg_jax.api.load`, which is imported, and jax with it, by the first call: the processes that read images import
    this package, too.
    """
    from pyrseg_jax import api

    return api.load(path, step)
