"""The keys `augment.*`."""

from typing import Annotated

from pyrseg_jax.run import choices
from pyrseg_jax.run.declare import OneOf, group, key


@group
class Augment:
    """Random changes of the training images beyond scale, crop, mirroring and color, which `data` has. All are off by default."""

    rotation_deg: float = key(
        0.0, "Rotate by a random angle between minus and plus this.", unit="degrees", at_least=0, at_most=180
    )
    shear_deg: float = key(
        0.0,
        "Shear: vertical lines lean by a random angle between minus and plus this.",
        unit="degrees",
        at_least=0,
        at_most=60,
    )
    affine_probability: float = key(1.0, "Share of the images that are rotated and sheared.", at_least=0, at_most=1)
    aspect: float = key(
        1.0,
        "Stretch width against height by a random factor between 1 / this and this, without changing the area.",
        at_least=1,
        at_most=4,
    )
    photometric_probability: float = key(
        0.0,
        "Share of the images with photometric distortion: each of the next four changes has probability one half. Only RGB of 8 "
        "bits has the last two.",
        at_least=0,
        at_most=1,
    )
    brightness: float = key(
        32.0,
        "Photometric distortion: add a random brightness between minus and plus this.",
        unit="gray levels",
        at_least=0,
        at_most=255,
    )
    contrast: float = key(
        0.5, "Photometric distortion: multiply all values by a random factor of 1 ± this.", at_least=0, at_most=1
    )
    saturation: float = key(
        0.5, "Photometric distortion: multiply the saturation by a random factor of 1 ± this.", at_least=0, at_most=1
    )
    hue_deg: int = key(
        36,
        "Photometric distortion: turn the hue by a random angle of up to this, in steps of 2 degrees.",
        unit="degrees",
        at_least=0,
        at_most=180,
    )
    blur_probability: float = key(0.0, "Share of the images that are blurred.", at_least=0, at_most=1)
    blur_sigma_px: float = key(
        2.0,
        "Largest standard deviation of the Gaussian blur; it is uniform from 0.",
        unit="px",
        at_least=0,
        at_most=100,
    )
    noise_probability: float = key(0.0, "Share of the images that get Gaussian noise.", at_least=0, at_most=1)
    noise_std: float = key(
        10.0,
        "Largest standard deviation of the noise; it is uniform from 0.",
        unit="gray levels",
        at_least=0,
        at_most=255,
    )
    jpeg_probability: float = key(
        0.0, "Share of the images that are compressed as JPEG and decoded again.", at_least=0, at_most=1
    )
    jpeg_quality_min: int = key(40, "Lowest quality of the JPEG compression.", at_least=1, at_most=100)
    jpeg_quality_max: int = key(95, "Highest quality of the JPEG compression.", at_least=1, at_most=100)
    erase_probability: float = key(
        0.0, "Share of the images in which a random rectangle is erased.", at_least=0, at_most=1
    )
    erase_share: float = key(
        0.2, "Largest share of the crop's area that is erased; it is uniform from 0.02.", at_least=0, at_most=1
    )
    erase_labels: Annotated[str, OneOf(choices.labels_of_erased)] = key(
        "void", "What becomes of the labels of erased pixels."
    )
    mix: Annotated[str, OneOf(choices.mixes)] = key("none", "How a part of a second image is pasted into an image.")
    mix_probability: float = key(0.5, "Share of the images into which a second image is pasted.", at_least=0, at_most=1)
    function: str | None = key(
        None,
        "Your own function, `package.module:NAME` or `path/to/file.py:NAME`, called as function(image, label, generator); or an "
        "Albumentations pipeline.",
    )
