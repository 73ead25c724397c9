"""Export to ONNX: a converter from jaxprs, the file that it writes, and 8-bit versions of it. `convert.py` is the entrance.

The converter is our own. jax2onnx, the library for this, pins versions of jax and Orbax that exclude those of this package, and
changes Flax while it runs. The networks here need sixty of jax's operations, and only inference.
"""
