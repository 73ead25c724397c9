"""Names of the backbone's arrays in each release of HRNet (the official one, timm, openseg, mmsegmentation).

The releases differ in prefixes, which an import strips, and in their heads, see `heads.py`.
"""

import re
from collections.abc import Mapping

from pyrseg_jax.errors import UserError
from pyrseg_jax.models.weights.head import KINDS, Path
from pyrseg_jax.models.weights.heads import HEADS
from pyrseg_jax.models.weights.importer import Importer

MARKER = "transition1.0.0.weight"  # its number of outputs is the network's width
# Parts of published files that do not belong to HRNet's features: ImageNet's classifier, and the class weights of a loss.
IGNORED = ("incre_modules.", "downsamp_modules.", "final_layer.", "classifier.", "loss.", "criterion.")

# Path of a module inside our HRNet → published name. `#` is 0 for the convolution of a pair and 1 for its normalization.
MODULE_NAMES = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"stem(\d)/(conv|bn)", r"\2\1"),
        (r"stage1_block_(\d+)/downsample/(conv|bn)", r"layer1.\1.downsample.#"),
        (r"stage1_block_(\d+)/(conv\d|bn\d)", r"layer1.\1.\2"),
        (r"transition1_0/(conv|bn)", r"transition1.0.#"),
        (r"transition(\d)_(\d)/(conv|bn)", r"transition\1.\2.0.#"),
        (r"stage(\d)/module_(\d+)/branch_(\d)_block_(\d+)/(\w+)", r"stage\1.\2.branches.\3.\4.\5"),
        (r"stage(\d)/module_(\d+)/fuse_(\d)_(\d)/(conv|bn)", r"stage\1.\2.fuse_layers.\3.\4.#"),
        (r"stage(\d)/module_(\d+)/fuse_(\d)_(\d)_(\d)/(conv|bn)", r"stage\1.\2.fuse_layers.\3.\4.\5.#"),
    )
)


def name_of(path: Path) -> str:
    """Return the published name of an array of our HRNet.

    Args:
      path: collection, modules inside the backbone, kind.

    Raises:
      UserError: if an HRNet does not have such an array.
    """
    module = "/".join(path[1:-1])
    for pattern, name in MODULE_NAMES:
        match = pattern.fullmatch(module)
        if match:
            return f"{match.expand(name).replace('#', '1' if module.endswith('bn') else '0')}.{KINDS[path[-1]]}"
    raise UserError(f"{module} has no published name: it does not belong to an HRNet")


def member(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Return the name of the HRNet with arrays of these shapes."""
    return f"HRNet-W{shapes[MARKER][0]}"


HRNET = Importer("HRNet", MARKER, member, name_of, IGNORED, HEADS)
