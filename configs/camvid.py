"""CamVid, 11 classes, 480×360, from scratch, read in place from a folder in ADE20K's layout (docs/guide/own_data.md).

Two CPU cores:
    python -m pyrseg_jax.main --config=configs/camvid.py:cpu --config.data.root=data/camvid
Rows of the paper's Table 2a, at either size:
    python -m pyrseg_jax.main --config=configs/camvid.py:cpu,A --config.data.root=data/camvid
One accelerator:
    python -m pyrseg_jax.main --config=configs/camvid.py --config.data.root=data/camvid

Result of camvid.py:cpu: mIoU 36.13 on validation, 1000 steps, 11 min 52 s from launch to pictures while the machine was also
running tests (Intel Xeon, 2 cores, Python 3.11, jax 0.10.2, 2026-11-22); the thin classes stay at 0, see docs/guide/results.md. The
full size has not been run yet.
"""

from pyrseg_jax.paper import tables as paper
from pyrseg_jax.run import config as config_lib


def get_config(variant: str = ""):
    """Return row H of the paper's Table 2a; `cpu` has a small backbone and budget, a letter A … I is another row."""
    words = paper.read_variant("camvid.py", variant, ("cpu",), paper.ROWS)
    config = config_lib.defaults()
    config.data.name, config.data.root = "folder", "data/camvid"
    config.data.crop_px = 352
    config.data.color_jitter = 0.3
    config.model.backbone = "hrnet_w32"
    config.training.batch_size, config.training.steps = 16, 12_000
    config.training.learning_rate, config.training.warmup_steps = 0.05, 500
    config.training.weight_decay = 5e-4  # there is no pre-training: 367 images alone must not be learned by heart
    config.training.evaluate_every, config.training.save_every = 1_000, 500
    paper.choose_row(config, words)
    if "cpu" in words:
        _fit_two_cores(config)
    return config


def _fit_two_cores(config):
    config.data.crop_px, config.data.workers = 224, 0
    # Hardly augmented: a budget this small never comes near to learning the images by heart.
    config.data.scale_min, config.data.scale_max, config.data.color_jitter = 0.8, 1.25, 0.1
    config.model.backbone, config.model.dtype = "hrnet_small", "float32"
    config.model.semantic_width, config.model.key_width, config.model.unity_width = 64, 32, 32
    config.training.batch_size, config.training.steps = 4, 1_000  # many small steps learn more than few large ones
    config.training.learning_rate, config.training.warmup_steps = 0.1, 30
    config.training.log_every, config.training.evaluate_every, config.training.save_every = 50, 500, 200
