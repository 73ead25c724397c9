"""Export to ONNX: a converter from jaxprs, the file that it writes, and 8-bit versions of it. `convert.py` is the entrance.

The converter is our own. jax2onnx, the library for this, changes Flax while it runs and takes no unknown number of images, and its
newest version needs an older Orbax than this package. The networks here need sixty of jax's operations, and only inference.
"""
