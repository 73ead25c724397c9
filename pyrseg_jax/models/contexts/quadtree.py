"""Label quadtrees of QGN (Chitta et al. 2020): their construction, their inverse, and the loss of predicted ones.

A quadtree has a map for each of the strides 32, 16, …, 1. A cell's label is 0, the composite class, if its pixels have different
labels, and otherwise their class plus 1; -1 marks cells to ignore.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Bool, Float, Int32, Integer, UInt8

from pyrseg_jax.conventions import VOID
from pyrseg_jax.models.contexts.contract import Outputs
from pyrseg_jax.pyramid import build_targets
from pyrseg_jax.pyramid.levels import Array, dont_care_of, to_children

STRIDES = (32, 16, 8, 4, 2, 1)
COMPOSITE = 0
IGNORED = -1
COMPOSITE_WEIGHT = 2.0  # of composite cells in the loss; the release's `prop_weight`

Tree = tuple[Int32[Array, "n _ _"], ...]


def build_quadtree(labels: Integer[Array, "n H W"], is_sparse: bool = False) -> Tree:
    """Build the quadtree of a batch of label maps.

    Args:
      labels: (N, H, W) train ids, 255 = void.
      is_sparse: whether to ignore the cells below a cell of one class. Otherwise they repeat that class.

    Returns:
      A map (N, ⌈H/s⌉, ⌈W/s⌉) for each stride s, coarse → fine. Void counts as a class of its own: cells that are void as a whole
      are ignored, and cells with some void pixels are composite.

    Source: Chitta et al. 2020, and its release's code for labels.
    Chosen: where a side is not a multiple of 32, cells at the end repeat the last pixels.
    """
    _, height, width = labels.shape
    padded = jnp.pad(jnp.asarray(labels), ((0, 0), (0, -height % STRIDES[0]), (0, -width % STRIDES[0])), mode="edge")
    targets = build_targets(padded, STRIDES, void="mixed")
    tree = [
        jnp.where(unity == 1, classes.astype(jnp.int32) + 1, jnp.where(unity == 0, COMPOSITE, IGNORED))
        for classes, unity in zip(targets.semantic[:-1], targets.unity, strict=True)
    ]
    pixels = targets.semantic[-1]
    tree.append(jnp.where(pixels == dont_care_of(pixels), IGNORED, pixels.astype(jnp.int32) + 1))
    if is_sparse:
        for level in range(1, len(tree)):
            is_open = to_children(jnp.asarray(tree[level - 1] == COMPOSITE))
            tree[level] = jnp.where(is_open, tree[level], IGNORED)
    return tuple(x[:, : -(-height // s), : -(-width // s)] for x, s in zip(tree, STRIDES, strict=True))


def rebuild_labels(tree: Tree) -> UInt8[Array, "n H W"]:
    """Return the label maps of quadtrees of up to 255 classes, dense or sparse.

    Each pixel has the label of its coarsest cell that is not composite.
    """
    found = tree[0]
    for level in tree[1:]:
        parents = _children(found, level)
        found = jnp.where(parents == COMPOSITE, level, parents)
    return jnp.where(found > COMPOSITE, found - 1, VOID).astype(jnp.uint8)


def is_composite(logits: Float[Array, "n h w c"]) -> Bool[jax.Array, "n h w"]:
    """Return whether the composite class has the largest logit of a cell."""
    return jnp.asarray(logits).argmax(-1) == COMPOSITE


def decide(
    logits: Sequence[Float[Array, "n _ _ c"]], goes_on: Sequence[Bool[Array, "n _ _"]]
) -> Float[jax.Array, "n H W c"]:
    """Return the logits of each pixel's coarsest cell that does not go on to the next level.

    Args:
      logits: a map for each level, coarse → fine.
      goes_on: for each level but the finest, whether a cell is composite and has only composite ancestors.

    Chosen: all pixels of a cell have the logits of the cell; the release interpolates between cells.
    """
    found = jnp.asarray(logits[0])
    for level, is_open in zip(logits[1:], goes_on, strict=True):
        found = jnp.where(_children(is_open, level)[..., None], level, _children(found, level))
    return found


def quadtree_loss(
    outputs: Outputs, labels: Integer[Array, "n H W"], supervision: str, is_sparse: bool = False
) -> Float[Array, ""]:
    """Return the sum over levels of the cross entropy of predicted quadtrees, with composite cells counting twice.

    Args:
      outputs: `quadtree`, maps (N, h, w, C + 1) of logits, coarse → fine from stride 32 on; they may end before stride 1. If there
        is `active`, a map of booleans for each of them, only active cells count.
      labels: (N, H, W) train ids, 255 = void.
      supervision: not used; every level has labels of its own.
      is_sparse: as in `build_quadtree`.

    Source: Chitta et al. 2020. The release weights all levels equally by default.
    """
    total = jnp.float32(0)
    active = outputs.get("active") or (None,) * len(outputs["quadtree"])
    for logits, cells, classes in zip(outputs["quadtree"], active, build_quadtree(labels, is_sparse), strict=False):
        is_cared = (classes != IGNORED) if cells is None else (classes != IGNORED) & cells
        losses = optax.softmax_cross_entropy_with_integer_labels(
            logits.astype(jnp.float32), jnp.maximum(classes, COMPOSITE)
        )
        weights = jnp.where(is_cared, jnp.where(classes == COMPOSITE, COMPOSITE_WEIGHT, 1.0), 0.0)
        total += (weights * losses).sum() / jnp.maximum(weights.sum(), 1.0)
    return total


def _children(cells: Array, like: Array) -> Array:
    """Copy each cell to its four children; leave out those beyond the size of the next level."""
    return to_children(cells)[:, : like.shape[1], : like.shape[2]]
