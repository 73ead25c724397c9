"""ADE20K, 150 classes, 20,210 training and 2,000 validation images: the paper's Table 1 on HRNet-W48.

Ours:
    python -m pyrseg_jax.main --config=configs/ade20k.py
A method that it is compared with, and the same with a pyramid:
    python -m pyrseg_jax.main --config=configs/ade20k.py:ocr
    python -m pyrseg_jax.main --config=configs/ade20k.py:ocr,pyramid
The table's protocol (several scales, mirrored):
    python -m pyrseg_jax.main --mode=evaluate --workdir=runs/ade20k --config.evaluation.protocol=multi_scale_flip

The data set is downloaded, or read from config.data.root (the zip or the unpacked folder). The paper's results, from ImageNet
weights: ours 47.37, HRNet 44.20, CCNet 45.65, ANL 45.23, OCR 45.50. The full size has not been run here yet; expect less from
random weights.
"""

from pyrseg_jax.paper import tables as paper
from pyrseg_jax.run import config as config_lib


def get_config(variant: str = ""):
    """Return the paper's recipe; a variant hrnet, anl, ccnet or ocr is another method, with `,pyramid` in our representation."""
    words = paper.read_variant("ade20k.py", variant, paper.METHODS, ("pyramid",))
    config = config_lib.defaults()
    config.data.name = "ade20k"
    config.data.crop_px = 512
    config.data.scale_min, config.data.scale_max = 0.5, 2.1
    config.model.backbone = "hrnet_w48"
    config.training.batch_size, config.training.steps = 16, 151_500  # 120 epochs
    config.training.learning_rate, config.training.weight_decay = 0.02, 1e-4
    config.training.evaluate_every, config.training.save_every = 10_000, 1_000
    config.evaluation.short_side_px = 512
    paper.choose_method(config, words)
    return config
