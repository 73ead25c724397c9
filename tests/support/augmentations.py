"""Pairs to augment, and an augmentation with everything on."""

import numpy as np

from pyrseg_jax.data.augmentation.degradation import Blur, JpegCompression, Noise
from pyrseg_jax.data.augmentation.erasing import Erasing
from pyrseg_jax.data.augmentation.geometry import Affine
from pyrseg_jax.data.augmentation.mixing import Mix
from pyrseg_jax.data.augmentation.photometric import Photometric
from pyrseg_jax.data.augmentation.user_function import UserFunction
from pyrseg_jax.data.decode import Pair
from pyrseg_jax.data.transforms import Augmentation

EFFECTS = (Photometric(0.8), Blur(0.5), Noise(0.5), JpegCompression(0.5), Erasing(0.5))


def everything(crop_px: int = 32, mix: str = "classmix") -> Augmentation:
    """Return an augmentation with every change on, for three classes."""
    function = UserFunction("support.user_functions:turned_colors", 3)
    affine = Affine(30.0, 10.0, 1.5, 0.7)
    return Augmentation(crop_px, 0.5, 1.5, True, 0.2, affine, EFFECTS, function, Mix(mix, 0.5))


def random_pair(generator: np.random.Generator, height: int, width: int) -> Pair:
    """Return noise with labels 0 … 5, some of them void."""
    label = generator.integers(0, 7, (height, width)).astype(np.uint8)
    label[label == 6] = 255
    return Pair(generator.integers(0, 256, (height, width, 3)).astype(np.uint8), label)
