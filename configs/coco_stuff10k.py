"""COCO-Stuff 10K, 171 classes, 9,000 training and 1,000 test images: the paper's Table 1 on HRNet-W48.

The paper's own method:
    pyrseg train --config=coco_stuff10k
A method that the paper compares with, and the same method with a pyramid:
    pyrseg train --config=coco_stuff10k:ocr
    pyrseg train --config=coco_stuff10k:ocr,pyramid
The same on a ResNet-101, with the recipe of the method's release, and our method there:
    pyrseg train --config=coco_stuff10k:resnet101,ccnet,pyramid
    pyrseg train --config=coco_stuff10k:resnet101,ours
The table's evaluation protocol (several scales, mirrored):
    pyrseg evaluate --workdir=runs/coco_stuff10k --config.evaluation.protocol=multi_scale_flip

The data set is downloaded, or read from config.data.root (the zip file or the unpacked folder). The paper's mIoU, from ImageNet
weights: ours 41.4, HRNet 37.9, CCNet 39.8, ANL 40.6, OCR 40.6. We have not trained the full size yet; expect lower numbers from
random weights, which learn better with config.training.head_multiplier=1 and a larger learning rate.
"""

from pyrseg_jax.paper import variants
from pyrseg_jax.run import config as config_lib

VARIANTS = (variants.METHODS, variants.BACKBONES, variants.RECIPES, variants.PYRAMID)


def get_config(variant: str = ""):
    """Return the paper's recipe, or that of the method and the backbone that the variant names."""
    words = variants.read_words("coco_stuff10k", variant, VARIANTS)
    config = config_lib.defaults()
    config.data.name = "coco_stuff10k"
    config.data.crop_px = 512
    config.data.scale_min, config.data.scale_max = 0.5, 2.1
    config.model.backbone = "hrnet_w48"
    config.training.batch_size, config.training.steps = 16, "110 epochs"
    # The backbone comes from ImageNet and changes slowly; the head is new.
    config.training.learning_rate, config.training.head_multiplier = 0.001, 10.0
    config.training.evaluate_every, config.training.save_every = 10_000, 1_000
    config.evaluation.split = "test"
    config.evaluation.short_side_px = 512
    variants.choose_method(config, words)
    return config
