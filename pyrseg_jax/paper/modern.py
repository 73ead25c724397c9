"""Modern backbones as words, and the recipes that they are trained with, as values of configuration keys, each with its source.

The names stand here as well as in `models.backbones`, so that a config file can be listed without JAX; a test compares both.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from pyrseg_jax.paper.releases import STANDARD_STEPS


@dataclasses.dataclass(frozen=True)
class Family:
    """Backbones that are trained alike.

    Attributes:
      title: the family, in words.
      words: names of the backbones → what to say of each.
      source: where the numbers of the recipe stand, and in what ours differs.
      keys: the recipe, on every data set.
    """

    title: str
    words: Mapping[str, str]
    source: str
    keys: Mapping[str, Any]

    def keys_for(self, data: str) -> dict[str, Any]:
        """Return the keys of the recipe for the data set of this name; none where it is that of the config."""
        return {**self.keys, **STANDARD_STEPS.get(data, {})} if self.keys else {}


def _adamw(learning_rate: float, weight_decay: float, head_multiplier: float = 1.0, layer_decay: float | None = None):
    return {
        "optimizer.name": "adamw",
        "optimizer.decay_mask": "kernels",
        "optimizer.layer_decay": layer_decay,
        "training.learning_rate": learning_rate,
        "training.weight_decay": weight_decay,
        "training.head_multiplier": head_multiplier,
        "training.warmup_steps": 1500,
        "training.poly_power": 1.0,
        "training.auxiliary_weight": 0.4,
        "data.crop_px": 512,
        "data.scale_max": 2.0,
    }


def _sizes(prefix: str, title: str, sizes: str) -> dict[str, str]:
    return {f"{prefix}_{size}": f"{title}-{size.upper()}" for size in sizes.split()}


# Of mmsegmentation 1.2.2's configs/…_ade20k-512x512.py. All decay linearly to 0 after 1500 steps of warm-up; ours decays from the
# first step on. Its AdamW has no weight decay on normalizations and position tables; ours has none on biases either.
FAMILIES = (
    Family(
        "ConvNeXt",
        _sizes("convnext", "ConvNeXt", "t s b l") | _sizes("convnextv2", "ConvNeXt V2", "a f p n t b l"),
        "mmsegmentation, configs/convnext: AdamW 1e-4, decay 0.05, learning rates that decay by 0.9 toward the images, there by "
        "stages and here by layers",
        _adamw(1e-4, 0.05, layer_decay=0.9),
    ),
    Family(
        "Swin Transformer",
        _sizes("swin", "Swin", "t s b l")
        | {f"swin_{size}_384": f"Swin-{size.upper()} with windows of 12" for size in "bl"},
        "mmsegmentation, configs/swin: AdamW 6e-5, decay 0.01",
        _adamw(6e-5, 0.01),
    ),
    Family(
        "MiT",
        {f"mit_b{i}": f"MiT-B{i}, SegFormer's encoder" for i in range(6)},
        "mmsegmentation, configs/segformer: AdamW 6e-5, ten times that in the head, decay 0.01",
        _adamw(6e-5, 0.01, head_multiplier=10.0),
    ),
    Family(
        "DINO",
        {f"dinov2_{size}{reg}": f"ViT-{size.upper()}/14 of DINOv2" for reg in ("", "_reg") for size in "sbl"}
        | {f"dinov3_{size}": f"ViT-{size.upper()}/16 of DINOv3" for size in "sbl"},
        "our choice: mmsegmentation's recipe for the ViT-B of BEiT, configs/beit: AdamW 3e-5, decay 0.05, learning rates that "
        "decay by 0.9 from layer to layer; its crops have 640 pixels, ours 512",
        _adamw(3e-5, 0.05, layer_decay=0.9),
    ),
    Family(
        "MobileNetV3",
        _sizes("mobilenetv3", "MobileNetV3", "l s"),
        "our choice: the recipe of the config",
        {},
    ),
)
FAMILY_OF = {word: family for family in FAMILIES for word in family.words}
