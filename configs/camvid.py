"""CamVid, 11 classes, from scratch, read in place from a folder in ADE20K's layout.

python -m pyrseg_jax.main --config=configs/camvid.py:cpu --config.data.root=data/camvid
"""

from pyrseg_jax import config as config_lib


def get_config(variant: str = ""):
    """Return the configuration; the variant `cpu` is for two cores, without it for an accelerator."""
    config = config_lib.defaults()
    config.data.name, config.data.root = "folder", "data/camvid"
    config.data.color_jitter = 0.3
    config.data.crop_px = 224
    config.data.scale_min, config.data.scale_max = 0.5, 1.5
    config.data.workers = 0

    config.model.backbone = "hrnet_small"
    config.model.semantic_width, config.model.key_width, config.model.unity_width = 64, 32, 32
    config.model.dtype = "float32"

    config.training.batch_size = 8
    config.training.steps = 800
    config.training.learning_rate = 0.1
    config.training.warmup_steps = 30
    config.training.log_every = 20
    config.training.evaluate_every = 400
    config.training.save_every = 200
    return config
