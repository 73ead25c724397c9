"""The parts of augmentation beyond scale, crop, mirroring and color jitter. `pyrseg_jax.data.transforms` puts them together."""
