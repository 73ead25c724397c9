"""The rendered `scenes` data set on two CPU cores: the quickstart.

The network of row H of the paper's Table 2a (the default), and a row of that table:
    pyrseg train --config=scenes
    pyrseg train --config=scenes:A
A method of Table 1 at this size, and the same method with a pyramid:
    pyrseg train --config=scenes:ocr
    pyrseg train --config=scenes:ocr,pyramid

The default trains with Muon and the Lovász loss, which learn more in the same time (docs/guide/results.md). Rows and methods keep
SGD and the cross entropy, as they were published. The mIoU of such a short training varies by a few points with the seed.
"""

from pyrseg_jax.paper import variants
from pyrseg_jax.run import config as config_lib

VARIANTS = (variants.ROWS, variants.METHODS, variants.PYRAMID)


def get_config(variant: str = ""):
    """Return row H of the paper's Table 2a with a small backbone, or the row or method that the variant names."""
    words = variants.read_words("scenes", variant, VARIANTS)
    config = config_lib.defaults()
    config.data.name = "scenes"
    config.data.crop_px = 192
    # Little augmentation: a training this short cannot memorize the images.
    config.data.scale_min, config.data.scale_max = 0.9, 1.1
    config.data.workers = 0

    config.model.backbone = "hrnet_small"
    config.model.semantic_width, config.model.key_width, config.model.unity_width = 64, 32, 32
    config.model.dtype = "float32"

    config.training.batch_size, config.training.steps = 4, 660  # many small steps learn more than a few large ones
    config.training.learning_rate = 0.1
    config.training.warmup_steps = 20
    config.training.log_every = 20
    config.training.evaluate_every = 330
    config.training.save_every = 110
    variants.choose_row(config, words)
    variants.choose_network(config, words)
    if not words:
        _learn_faster(config)
    return config


def _learn_faster(config):
    config.optimizer.name, config.optimizer.schedule, config.optimizer.decay_mask = "muon", "cosine", "kernels"
    config.training.learning_rate, config.training.weight_decay = 0.01, 0.02
    config.loss.lovasz = 1.0
    # These steps take longer: 550 of them take a fifth more time than 660 with SGD.
    config.training.steps, config.training.evaluate_every = 550, 275
