"""Pre-training on rendered scenes, as many as one likes: weights to start from that need no download.

    pyrseg train --config=pretrain_scenes --workdir=runs/pretrained
    pyrseg train --config=camvid:cpu --config.model.init=runs/pretrained --config.data.root=data/camvid

The network and the recipe are those of `scenes`, with more steps. The scenes are rendered while the training goes on, so that
even a long training hardly sees one twice. On two CPU cores this costs time, which `waited for data` in the log shows.
"""

from typing import Any

from pyrseg_jax.paper import variants
from pyrseg_jax.run import config_file

VARIANTS = ()


def get_config(variant: str = ""):
    """Return the recipe of the quickstart with scenes without an end; there are no variants."""
    variants.read_words("pretrain_scenes", variant, VARIANTS)
    config: Any = config_file.load(config_file.find("scenes"))
    config.data.name = "endless_scenes"
    config.data.scale_min, config.data.scale_max, config.data.color_jitter = 0.8, 1.25, 0.2
    config.training.steps, config.training.evaluate_every, config.training.save_every = 3_000, 1_000, 500
    return config
