"""Build TFDS data sets for segmentation without TensorFlow."""
