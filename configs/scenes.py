"""The `scenes` data set, which renders itself, on two CPU cores.

python -m pyrseg_jax.main --config=configs/scenes.py

Result: mIoU 48.91 on validation on 2026-11-23, 56.71 with --config.seed=1; a run this short varies by
some points. 660 steps, 6 min 49 s from launch to pictures (Intel Xeon, 2 cores, Python 3.11,
jax 0.10.2, 2026-11-22); the best constant prediction has 2.12.
"""

from pyrseg_jax.paper import tables as paper
from pyrseg_jax.run import config as config_lib


def get_config(variant: str = ""):
    """Return the configuration: row H of the paper's Table 2a with a small backbone; a variant A … I is another row."""
    words = paper.read_variant("scenes.py", variant, paper.ROWS)
    config = config_lib.defaults()
    config.data.name = "scenes"
    config.data.crop_px = 192
    # Hardly augmented: a budget this small never comes near to learning the images by heart.
    config.data.scale_min, config.data.scale_max = 0.9, 1.1
    config.data.workers = 0

    config.model.backbone = "hrnet_small"
    config.model.semantic_width, config.model.key_width, config.model.unity_width = 64, 32, 32
    config.model.dtype = "float32"

    config.training.batch_size, config.training.steps = 4, 660  # many small steps learn more than few large ones
    config.training.learning_rate = 0.1
    config.training.warmup_steps = 20
    config.training.log_every = 20
    config.training.evaluate_every = 330
    config.training.save_every = 110
    paper.choose_row(config, words)
    return config
