"""Context modules: from backbone features to one feature map per level of the pyramid, one file per published module.

To add a module, write a file for it and add one line to `CONTEXTS`. `contract.py` says how a module is called, and what its spec
tells the rest of the package.
"""

from pyrseg_jax.models.contexts.anl import ANL
from pyrseg_jax.models.contexts.ccnet import CCNet
from pyrseg_jax.models.contexts.coarse_to_fine import CoarseToFine
from pyrseg_jax.models.contexts.contract import (
    ContextLoss,
    ContextMap,
    ContextOutput,
    ContextSettings,
    ContextSpec,
    Pooled,
    Refined,
    make_none,
    make_pooled,
)
from pyrseg_jax.models.contexts.dsspn import DSSPN, neuron_loss
from pyrseg_jax.models.contexts.ocr import OCR
from pyrseg_jax.models.contexts.sgr import SGR
from pyrseg_jax.models.contexts.tree import make_tree

__all__ = [
    "CONTEXTS",
    "ContextLoss",
    "ContextMap",
    "ContextOutput",
    "ContextSettings",
    "ContextSpec",
    "Pooled",
    "Refined",
]

# The published modules of Table 1 come with the auxiliary classifier of their release, and predict per pixel without a projection.
CONTEXTS: dict[str, ContextSpec] = {
    "none": ContextSpec(make_none, meaning="no context module: the backbone's features as they are"),
    "anl": ContextSpec(
        make_pooled(lambda s: ANL(s.width, s.key_width, s.dtype)),
        has_auxiliary=True,
        is_projected=False,
        meaning="asymmetric non-local attention (Zhu et al. 2019)",
    ),
    "ccnet": ContextSpec(
        make_pooled(lambda s: CCNet(s.width, s.dtype)),
        has_auxiliary=True,
        is_projected=False,
        meaning="criss-cross attention (Huang et al. 2019)",
    ),
    "ocr": ContextSpec(
        make_pooled(lambda s: OCR(s.width, s.key_width, s.resize, s.dtype)),
        has_auxiliary=True,
        is_projected=False,
        has_resize=True,
        meaning="object-contextual representations (Yuan et al. 2020)",
    ),
    "dsspn": ContextSpec(
        make_pooled(lambda s: DSSPN(make_tree(s.num_classes, s.hierarchy), s.key_width, dtype=s.dtype)),
        is_projected=False,
        classifies=True,
        losses={"neurons": ContextLoss(1.0, neuron_loss)},
        reads_hierarchy=True,
        meaning="DSSPN-style classification down a tree of classes (Liang et al. 2018)",
    ),
    "sgr": ContextSpec(
        make_pooled(lambda s: SGR(make_tree(s.num_classes, s.hierarchy), s.key_width, dtype=s.dtype)),
        is_projected=False,
        reads_hierarchy=True,
        meaning="SGR-style reasoning over a tree of classes (Liang et al. 2018)",
    ),
    "coarse_to_fine": ContextSpec(
        lambda s: CoarseToFine(s.num_levels, s.width, s.key_width, s.dtype),
        meaning="the paper's coarse-to-fine module (Sec. 3.3)",
    ),
}
