"""The host side: files, label values, augmentation and batches. NumPy only; nothing in here imports jax."""
