"""Numbers that the host side and the device side must agree on."""

from typing import Any

import numpy as np

# In label maps: a pixel without ground truth. The type of a map says which value that is, see `void_of`.
VOID = 255  # in maps of bytes, and of int32: classes are 0 … 254
WIDE_VOID = 65535  # in maps of uint16, which hold more than 255 classes: classes are 0 … 65534

# Mean and standard deviation of RGB values (0 … 255) over ImageNet. Published HRNet weights expect inputs normalized with them.
IMAGE_MEAN = (123.675, 116.28, 103.53)
IMAGE_STD = (58.395, 57.12, 57.375)


def void_of(dtype: Any) -> int:
    """Return the value of void in label maps, predictions and targets of a type, which may be that of an array of JAX."""
    return WIDE_VOID if np.dtype(dtype) == np.uint16 else VOID


def label_dtype(num_classes: int) -> np.dtype:
    """Return the type of label maps with so many classes: one byte for up to 255 classes, and else two."""
    return np.dtype(np.uint8 if num_classes <= VOID else np.uint16)


def image_mean(channels: int) -> tuple[float, ...]:
    """Return the value of each channel that normalization takes to 0.

    Chosen: for images that are not RGB, the mean of the three numbers of RGB, so that imported weights see numbers of the range
    that they were trained on.
    """
    return IMAGE_MEAN if channels == 3 else (sum(IMAGE_MEAN) / 3,) * channels


def image_std(channels: int) -> tuple[float, ...]:
    """Return the value that normalization divides each channel by; see `image_mean`."""
    return IMAGE_STD if channels == 3 else (sum(IMAGE_STD) / 3,) * channels
