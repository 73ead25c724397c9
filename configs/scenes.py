"""The `scenes` data set, which renders itself, on two CPU cores.

python -m pyrseg_jax.main --config=configs/scenes.py
"""

from pyrseg_jax import config as config_lib


def get_config():
    """Return the configuration: experiment H of the paper's Table 2a with a small backbone."""
    config = config_lib.defaults()
    config.data.name = "scenes"
    config.data.crop_px = 192
    config.data.scale_min, config.data.scale_max = 0.75, 1.5
    config.data.color_jitter = 0.2
    config.data.workers = 0

    config.model.backbone = "hrnet_small"
    config.model.semantic_width, config.model.key_width, config.model.unity_width = 64, 32, 32
    config.model.dtype = "float32"

    config.training.batch_size = 8
    config.training.steps = 300
    config.training.learning_rate = 0.1
    config.training.warmup_steps = 20
    config.training.log_every = 10
    config.training.evaluate_every = 150
    config.training.save_every = 100
    return config
