"""The paper's Table 2a: HRNet-W32 on ADE20K's training images, 4,000 of which are held out for evaluation.

Row H (the default), and another row:
    pyrseg train --config=ablation
    pyrseg train --config=ablation:A
All rows with three seeds, and their table:
    bash launch/ablation.sh --config=configs/ablation.py

The paper's mIoU: A 40.42, B 42.02, C 42.00, D 40.41, E 41.54, F 42.07, G 43.07, H 44.31, I 42.63, from ImageNet weights. Our
own results, at a size for two CPU cores, are in docs/guide/results.md.
"""

from pyrseg_jax.paper import variants
from pyrseg_jax.run import config as config_lib

VARIANTS = (variants.ROWS,)


def get_config(variant: str = ""):
    """Return row H, or the row of Table 2a that the variant names."""
    words = variants.read_words("ablation", variant, VARIANTS)
    config = config_lib.defaults()
    config.data.name = "ade20k"
    config.data.holdout = 4_000
    config.data.crop_px = 512
    config.data.scale_min, config.data.scale_max = 0.5, 2.1
    config.model.backbone = "hrnet_w32"
    config.training.batch_size, config.training.steps = 16, "120 epochs"
    config.training.learning_rate, config.training.weight_decay = 0.02, 1e-4
    config.training.evaluate_every, config.training.save_every = 20_000, 1_000
    config.evaluation.split = "holdout"
    config.evaluation.short_side_px = 512
    variants.choose_row(config, words)
    return config
