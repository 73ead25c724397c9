"""PASCAL-Context, 59 classes, 4,998 training and 5,105 validation images of PASCAL VOC 2010, on HRNet-W48.

The paper's own method:
    pyrseg train --config=pascal_context
A method that the paper compares with, and the same method with a pyramid:
    pyrseg train --config=pascal_context:ocr
    pyrseg train --config=pascal_context:ocr,pyramid
The same on a ResNet-101, with the recipe of the method's release, and our method there:
    pyrseg train --config=pascal_context:resnet101,ccnet,pyramid
    pyrseg train --config=pascal_context:resnet101,ours
HRNet's evaluation protocol (several scales, mirrored):
    pyrseg evaluate --workdir=runs/pascal_context --config.evaluation.protocol=multi_scale_flip

The data set is downloaded, or read from config.data.root: the folder that holds VOCtrainval_03-May-2010.tar and trainval.tar.gz,
or what they unpack to (docs/guide/datasets.md). The text of the paper that we have states no recipe for PASCAL-Context, so this is
HRNet's, from its release: SGD for 200 epochs of batches of 16, learning rate 0.001 and ten times that for the head, weight decay
0.0001, scales 0.5 to 2.1, and the loss of all pixels. Its crops have 520 pixels; ours have 512, a multiple of the coarsest stride.
With it, HRNet's authors publish the mIoU HRNet 54.1 and OCR 56.2. We have not trained the full size yet.
"""

from pyrseg_jax.paper import variants
from pyrseg_jax.run import config as config_lib

VARIANTS = (variants.METHODS, variants.BACKBONES, variants.RECIPES, variants.PYRAMID)


def get_config(variant: str = ""):
    """Return HRNet's recipe with the paper's network, or the recipe and network of the words that the variant names."""
    words = variants.read_words("pascal_context", variant, VARIANTS)
    config = config_lib.defaults()
    config.data.name = "pascal_context"
    config.data.crop_px = 512
    config.data.scale_min, config.data.scale_max = 0.5, 2.1
    config.model.backbone = "hrnet_w48"
    config.training.batch_size, config.training.steps = 16, "200 epochs"
    # The backbone comes from ImageNet and changes slowly; the head is new.
    config.training.learning_rate, config.training.head_multiplier = 0.001, 10.0
    config.training.weight_decay = 1e-4
    config.training.evaluate_every, config.training.save_every = 10_000, 1_000
    config.evaluation.short_side_px = 512
    variants.choose_method(config, words)
    # Here, the releases of HRNet and OCR learn from all pixels, and not only from hard ones.
    config.training.ohem_threshold, config.training.ohem_min_kept = None, 0
    return config
