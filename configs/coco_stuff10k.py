"""COCO-Stuff 10K, 171 classes, 9,000 training and 1,000 test images: the paper's Table 1 on HRNet-W48.

Ours:
    python -m pyrseg_jax.main --config=configs/coco_stuff10k.py
A method that it is compared with, and the same with a pyramid:
    python -m pyrseg_jax.main --config=configs/coco_stuff10k.py:ocr
    python -m pyrseg_jax.main --config=configs/coco_stuff10k.py:ocr,pyramid
The table's protocol (several scales, mirrored):
    python -m pyrseg_jax.main --mode=evaluate --workdir=runs/coco_stuff10k --config.evaluation.protocol=multi_scale_flip

The data set is downloaded, or read from config.data.root (the zip or the unpacked folder). The paper's results, from ImageNet
weights: ours 41.4, HRNet 37.9, CCNet 39.8, ANL 40.6, OCR 40.6. The full size has not been run here yet; expect less from random
weights, for which config.training.head_multiplier=1 and a larger learning rate are the better start.
"""

from pyrseg_jax.paper import tables as paper
from pyrseg_jax.run import config as config_lib


def get_config(variant: str = ""):
    """Return the paper's recipe; a variant hrnet, anl, ccnet or ocr is another method, with `,pyramid` in our representation."""
    words = paper.read_variant("coco_stuff10k.py", variant, paper.METHODS, ("pyramid",))
    config = config_lib.defaults()
    config.data.name = "coco_stuff10k"
    config.data.crop_px = 512
    config.data.scale_min, config.data.scale_max = 0.5, 2.1
    config.model.backbone = "hrnet_w48"
    config.training.batch_size, config.training.steps = 16, 61_800  # 110 epochs
    # The backbone comes from ImageNet and moves slowly; the head is new.
    config.training.learning_rate, config.training.head_multiplier = 0.001, 10.0
    config.training.evaluate_every, config.training.save_every = 10_000, 1_000
    config.evaluation.split = "test"
    config.evaluation.short_side_px = 512
    paper.choose_method(config, words)
    return config
