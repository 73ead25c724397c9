"""Rewrite the first convolution of published weights for images that are normalized as ours are.

Publishers normalize their images in different ways. The first layer is linear up to its normalization, so a change of the input is
a change of its kernel and of the mean that is subtracted after it.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from pyrseg_jax.conventions import IMAGE_MEAN, IMAGE_STD

FIRST_LAYER = "stem1"  # the layer of our backbones that reads the images
Numbers = tuple[float, float, float]


class ImageInput(NamedTuple):
    """How a publisher's programs make the network's input of a photograph.

    Attributes:
      words: the same in words, for messages.
      mean, std: of the three channels, in the publisher's order, for values of 0 … 255.
      is_bgr: whether the channels are blue, green, red. Ours are red, green, blue.
    """

    words: str
    mean: Numbers
    std: Numbers = (1.0, 1.0, 1.0)
    is_bgr: bool = True


# Source: configs of openseg.pytorch on ResNets (`R_101_D_8.json`), and the code of QGN.
BGR_255 = ImageInput("BGR from 0 to 255 minus a mean", (102.9801, 115.9465, 122.7717))
# Source: `train.py` of CCNet's release, which reads images with OpenCV.
BGR_255_CCNET = ImageInput("BGR from 0 to 255 minus a mean", (104.00698793, 116.66876762, 122.67891434))
# Source: configs of openseg.pytorch on HRNets (`H_48_D_4.json`): ImageNet's statistics in the order of RGB, on images in the order
# of BGR, so that blue is normalized by the numbers of red.
BGR_BY_RGB_STATISTICS = ImageInput("BGR normalized by the statistics of RGB", IMAGE_MEAN, IMAGE_STD)


def rewrite_first_layer(
    variables: Mapping[tuple[str, ...], np.ndarray], given: ImageInput
) -> dict[tuple[str, ...], np.ndarray]:
    """Return the variables with a first layer that computes from our input what the published one computes from its own.

    Both agree but for rounding where the kernel lies inside of the image. Beyond the border, zeros pad the input: the publisher's
    mean color there, and ours here.

    Args:
      variables: of a backbone, or of a network with one; paths as in `head.Path`.
      given: the publisher's input.
    """
    order = slice(None, None, -1 if given.is_bgr else 1)
    mean, std = (np.asarray(numbers, np.float64)[order] for numbers in (given.mean, given.std))  # of red, green, blue
    ours_mean, ours_std = np.asarray(IMAGE_MEAN), np.asarray(IMAGE_STD)
    kernel_path = next(path for path in variables if path[-3:] == (FIRST_LAYER, "conv", "kernel"))
    mean_path = next(path for path in variables if path[-3:] == (FIRST_LAYER, "bn", "mean"))
    kernel = variables[kernel_path].astype(np.float64)[:, :, order]
    # The publisher's input is ours · ours_std / std + (ours_mean - mean) / std.
    constant = np.einsum("abio,i->o", kernel, (ours_mean - mean) / std)
    return dict(variables) | {
        kernel_path: (kernel * (ours_std / std)[:, None]).astype(np.float32),
        mean_path: (variables[mean_path] - constant).astype(np.float32),
    }


def fit_channels(
    variables: Mapping[tuple[str, ...], np.ndarray], shapes: Mapping[tuple[str, ...], Any]
) -> tuple[dict[tuple[str, ...], np.ndarray], tuple[str, ...]]:
    """Bring the layer that reads RGB images to another number of channels; also say in words what was computed.

    Each channel gets the mean of the kernels of red, green and blue, times 3 / C, so that a gray picture in all C channels gives
    what it gave in three.

    Args:
      variables: those of a network for RGB images, by path.
      shapes: the network's own arrays, or their shapes, by path.

    Chosen: this rule for every channel: what the channels of a file show is not known.
    """
    fitted = dict(variables)
    for path, array in variables.items():
        ours = shapes[path].shape if path in shapes else array.shape
        if (
            array.ndim == 4
            and array.shape[2] == 3
            and ours == (*array.shape[:2], ours[2], array.shape[3])
            and ours[2] != 3
        ):
            fitted[path] = np.repeat(array.mean(2, keepdims=True) * np.float32(3 / ours[2]), ours[2], axis=2)
    if all(fitted[path] is array for path, array in variables.items()):
        return fitted, ()
    return fitted, (
        "the first convolution: each channel gets the mean of the kernels of red, green and blue, times 3 / channels",
    )
