"""The augmentation of training images, from the keys `data.*` and `augment.*`."""

import logging

from pyrseg_jax.data.augmentation.degradation import Blur, JpegCompression, Noise
from pyrseg_jax.data.augmentation.erasing import Erasing
from pyrseg_jax.data.augmentation.geometry import Affine
from pyrseg_jax.data.augmentation.mixing import Mix
from pyrseg_jax.data.augmentation.photometric import Photometric
from pyrseg_jax.data.augmentation.user_function import UserFunction
from pyrseg_jax.data.image_space import PHOTOGRAPH, make_image_space
from pyrseg_jax.data.transforms import Augmentation
from pyrseg_jax.run.naming import naming
from pyrseg_jax.run.schema import Config

log = logging.getLogger(__name__)


def make_augmentation(config: Config, num_classes: int) -> Augmentation:
    """Build the augmentation, and import the user's function if there is one.

    Args:
      config: the experiment.
      num_classes: the number of train ids, which the user's function may return.

    Raises:
      UserError: naming the key, if the user's function cannot be imported.
    """
    data, augment = config.data, config.augment
    space = make_image_space(data.channels, data.scaling, data.nodata)
    if augment.photometric_probability and (space.channels != PHOTOGRAPH.channels or space.is_scaled):
        log.info(
            "config.augment.photometric_probability: the images have %s, so only brightness and contrast change, not hue and "
            "saturation",
            space.describe(),
        )
    effects = (
        Photometric(
            augment.photometric_probability, augment.brightness, augment.contrast, augment.saturation, augment.hue_deg
        ),
        Blur(augment.blur_probability, augment.blur_sigma_px),
        Noise(augment.noise_probability, augment.noise_std),
        JpegCompression(augment.jpeg_probability, augment.jpeg_quality_min, augment.jpeg_quality_max),
        Erasing(augment.erase_probability, augment.erase_share, augment.erase_labels),
    )
    return Augmentation(
        data.crop_px,
        data.scale_min,
        data.scale_max,
        data.is_flipped,
        data.color_jitter,
        Affine(augment.rotation_deg, augment.shear_deg, augment.aspect, augment.affine_probability),
        tuple(effect for effect in effects if effect.probability > 0),
        _find_function(augment.function, num_classes),
        None if augment.mix == "none" else Mix(augment.mix, augment.mix_probability),
    )


@naming("augment")
def _find_function(name: str | None, num_classes: int) -> UserFunction | None:
    if name is None:
        return None
    function = UserFunction(name, num_classes)
    function.check()  # now, instead of in a worker process at the first batch
    return function
