"""CamVid, 11 classes, 480×360, read from a folder in ADE20K's layout (docs/guide/own_data.md).

Two CPU cores:
    pyrseg train --config=camvid:cpu --config.data.root=data/camvid
    pyrseg train --config=camvid:cpu,long --config.data.root=data/camvid
A row of the paper's Table 2a, at either size:
    pyrseg train --config=camvid:cpu,A --config.data.root=data/camvid
A method of Table 1, and the same method with a pyramid, at either size:
    pyrseg train --config=camvid:cpu,ocr --config.data.root=data/camvid
    pyrseg train --config=camvid:cpu,ocr,pyramid --config.data.root=data/camvid
One accelerator:
    pyrseg train --config=camvid --config.data.root=data/camvid

`camvid:cpu` starts from the packaged model `scenes-small`. It trains with Muon, the Lovász loss, and class weights, which
learn more in the same time, and varies the light of the photographs (docs/guide/results.md). Rows, methods, and the full size
start from random weights and have SGD and the cross entropy, as they were published. We have not trained the full size yet.
"""

from pyrseg_jax.paper import variants
from pyrseg_jax.run import config as config_lib

VARIANTS = (
    {"cpu": "a small backbone and a short training, for two CPU cores"},
    {"long": "with cpu: three times as many steps, and larger changes of scale"},
    variants.ROWS,
    variants.METHODS,
    variants.PYRAMID,
)


def get_config(variant: str = ""):
    """Return row H of the paper's Table 2a, or the row or method and the size that the variant names."""
    words = variants.read_words("camvid", variant, VARIANTS)
    config = config_lib.defaults()
    config.data.name, config.data.root = "folder", "data/camvid"
    config.data.crop_px = 352
    config.data.color_jitter = 0.3
    config.model.backbone = "hrnet_w32"
    config.training.batch_size, config.training.steps = 16, 12_000
    config.training.learning_rate, config.training.warmup_steps = 0.05, 500
    config.training.weight_decay = 5e-4  # without pre-training, 367 images are quickly memorized
    config.training.evaluate_every, config.training.save_every = 1_000, 500
    variants.choose_row(config, words)
    variants.choose_network(config, words)
    if "long" in words and not words <= {"cpu", "long"}:
        raise ValueError(f"camvid:{variant}: long is a recipe for the default network; expected camvid:cpu,long")
    if words & {"cpu", "long"}:
        _fit_two_cores(config)
        if words <= {"cpu", "long"}:
            _learn_faster(config)
    if "long" in words:
        config.training.steps, config.training.evaluate_every, config.training.save_every = 7_000, 3_500, 500
        config.data.scale_min, config.data.scale_max = 0.7, 1.6
    return config


def _fit_two_cores(config):
    config.data.crop_px, config.data.workers = 224, 0
    # Little augmentation: a training this short cannot memorize the images.
    config.data.scale_min, config.data.scale_max, config.data.color_jitter = 0.8, 1.25, 0.1
    config.model.backbone, config.model.dtype = "hrnet_small", "float32"
    config.model.semantic_width, config.model.key_width, config.model.unity_width = 64, 32, 32
    config.training.batch_size, config.training.steps = 4, 1_000  # many small steps learn more than a few large ones
    config.training.learning_rate, config.training.warmup_steps = 0.1, 30
    config.training.log_every, config.training.evaluate_every, config.training.save_every = 50, 500, 200


def _learn_faster(config):
    # Trained on rendered street scenes for four and a half minutes (docs/guide/results.md).
    config.model.init = "scenes-small"
    config.optimizer.name, config.optimizer.schedule, config.optimizer.decay_mask = "muon", "cosine", "kernels"
    config.training.learning_rate, config.training.weight_decay = 0.01, 0.02
    config.loss.lovasz, config.loss.class_weights = 1.0, "inverse_log"
    _vary_light(config)
    config.evaluation.threshold = 0.7  # coarse cells that are not sure hide poles and signs
    config.training.steps, config.training.evaluate_every = 2_400, 1_200


def _vary_light(config):
    # Without these, a network that has seen only the drives by day is 4 points worse at dusk (docs/guide/results.md).
    config.data.color_jitter = 0.0
    config.augment.photometric_probability, config.augment.brightness, config.augment.hue_deg = 1.0, 48.0, 24
    config.augment.blur_probability, config.augment.blur_sigma_px = 0.3, 1.5
    config.augment.noise_probability = 0.3
