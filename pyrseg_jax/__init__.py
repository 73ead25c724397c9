"""Pyramidal semantic segmentation in JAX: *Specialize and Fuse* (Hsiao et al., ICCV 2021).

The paper's algebra is in `pyrseg_jax.pyramid`, the networks are in `pyrseg_jax.models`; `docs/paper_map.md`
leads from each equation to the function that computes it and to the test that checks it.
"""
