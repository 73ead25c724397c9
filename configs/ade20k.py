"""ADE20K, 150 classes, 20,210 training and 2,000 validation images: the paper's Table 1 on HRNet-W48.

The paper's own method:
    pyrseg train --config=ade20k
A method that the paper compares with, and the same method with a pyramid:
    pyrseg train --config=ade20k:ocr
    pyrseg train --config=ade20k:ocr,pyramid
The same on a ResNet-101, with the recipe of the method's release, and our method there:
    pyrseg train --config=ade20k:resnet101,ccnet,pyramid
    pyrseg train --config=ade20k:resnet101,ours
The table's evaluation protocol (several scales, mirrored):
    pyrseg evaluate --workdir=runs/ade20k --config.evaluation.protocol=multi_scale_flip

The data set is downloaded, or read from config.data.root (the zip file or the unpacked folder). The paper's mIoU, from ImageNet
weights: ours 47.37, HRNet 44.20, CCNet 45.65, ANL 45.23, OCR 45.50. We have not trained the full size yet; expect lower numbers
from random weights.
"""

from pyrseg_jax.paper import variants
from pyrseg_jax.run import config as config_lib

VARIANTS = (variants.METHODS, variants.BACKBONES, variants.RECIPES, variants.PYRAMID)


def get_config(variant: str = ""):
    """Return the paper's recipe, or that of the method and the backbone that the variant names."""
    words = variants.read_words("ade20k", variant, VARIANTS)
    config = config_lib.defaults()
    config.data.name = "ade20k"
    config.data.crop_px = 512
    config.data.scale_min, config.data.scale_max = 0.5, 2.1
    config.model.backbone = "hrnet_w48"
    config.training.batch_size, config.training.steps = 16, "120 epochs"
    config.training.learning_rate, config.training.weight_decay = 0.02, 1e-4
    config.training.evaluate_every, config.training.save_every = 10_000, 1_000
    config.evaluation.short_side_px = 512
    variants.choose_method(config, words)
    return config
