"""DSSPN-style classification down the tree of classes (Liang et al. 2018, Dynamic-Structured Semantic Propagation Network)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Integer

from pyrseg_jax.models.backbones.contract import Features
from pyrseg_jax.models.contexts.atrous import AtrousSum
from pyrseg_jax.models.contexts.contract import ContextLoss, ContextMap, ContextSpec, Logits, Outputs, make_pooled
from pyrseg_jax.models.contexts.tree import Tree, make_tree
from pyrseg_jax.models.layers import conv, hidden_init, output_init
from pyrseg_jax.models.normalization import BatchNorm
from pyrseg_jax.models.supervision import fit_to_labels
from pyrseg_jax.pyramid import levels

GROWTH = 48  # maps that a neuron adds
BOTTLENECK = 4  # channels between a neuron's two convolutions, as a multiple of GROWTH; DenseNet's factor


class DSSPN(nn.Module):
    """A neuron for each inner node of the tree of classes: it tells the node's children apart, from all that its ancestors found.

    A neuron reads the root's features and the maps of all neurons above it, and adds `growth` maps of its own through a 1×1 and a
    3×3 convolution. From these it predicts a logit for each of its children. A pixel gets the class to which the descent from the
    root leads that always takes the most probable child.

    Returns a `ContextMap` of the root's features and all neurons' maps, with the class logits, and for `neuron_loss` the outputs
    `neurons` (N, h, w, E), a logit for each node but the root, `below` (E, C), whether a class is the node or lies below it, and
    `neuron_of` (E,), the number of the neuron that predicts it.

    Attributes:
      tree: the classes and their groups.
      width: channels of the root's features.
      growth: maps that each neuron adds.

    Source: Liang et al. 2018 (arXiv 1803.06067): neurons of a concept tree, dense connections to all descendants, a loss on the
      active neurons alone.
    Chosen: the tree is the data set's own. All neurons are evaluated and the loss masks the inactive ones, which keeps shapes
      fixed; running statistics therefore see all images.
    Chosen: each map is normalized once and not once per reader, so that the root's features need no copy per neuron.
    Chosen: a block is 1×1, normalization, ReLU, 3×3, normalization, ReLU. The classifier of a neuron reads the neuron's own maps.
    Chosen: the logit of a class is the sum, over the decisions on its path, of how far the taken child's logit lies below the
      largest logit of the neuron. It is 0 for the class of the descent and negative for all others, so the largest logit is that of
      the descent. Their softmax sums to 1 over the classes.
    Chosen: no gradient flows through these logits: the neurons' losses alone train a network that predicts one class per pixel, so
      a neuron without a class in the image learns nothing from it. With levels to specialize, these are trained as usual.
    """

    tree: Tree
    width: int
    growth: int = GROWTH
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, features: Features, auxiliary: Logits | None, train: bool) -> ContextMap:
        root = AtrousSum(self.width, dtype=self.dtype, name="root")(features.final, train)
        maps = jnp.zeros((*root.shape[:3], 0), root.dtype)  # those of the neurons so far, in their order
        for depth in range(max(self.tree.depths) + 1):
            found = self._neurons_at(depth, root, maps, train)
            maps = jnp.concatenate([maps, found], axis=-1)
        neurons = NeuronClassifiers(self.tree, self.dtype, name="classify")(maps)
        logits = jax.lax.stop_gradient(descent_logits(neurons, self.tree))
        outputs = {
            "neurons": neurons,
            "below": jnp.asarray(self.tree.below()[1:]),
            "neuron_of": jnp.asarray(self.tree.parents[1:]),
        }
        return ContextMap(jnp.concatenate([root, maps], axis=-1), logits, outputs)

    def _neurons_at(self, depth: int, root: Array, maps: Array, train: bool) -> Array:
        """Return the maps (N, h, w, G · growth) of the G neurons of a depth, side by side: one grouped convolution for all."""
        nodes = self.tree.at_depth(depth)
        inner = BOTTLENECK * self.growth
        x = conv(len(nodes) * inner, 1, dtype=self.dtype, name=f"squeeze_{depth}")(root)
        if depth:
            ancestors = np.array([self.tree.ancestors(node) for node in nodes])  # (G, depth)
            channels = (ancestors[..., None] * self.growth + np.arange(self.growth)).reshape(-1)
            x += self._grouped(len(nodes), inner, 1, f"ancestors_{depth}")(maps[..., channels])
        x = BatchNorm(is_active=True, dtype=self.dtype, name=f"norm_{depth}")(x, train)
        x = self._grouped(len(nodes), self.growth, 3, f"grow_{depth}")(x)
        return BatchNorm(is_active=True, dtype=self.dtype, name=f"norm_grow_{depth}")(x, train)

    def _grouped(self, num_groups: int, features: int, kernel: int, name: str) -> nn.Conv:
        """Make a convolution for each group of channels, with as many output channels each."""
        pad = kernel // 2
        return nn.Conv(
            num_groups * features,
            (kernel, kernel),
            padding=((pad, pad), (pad, pad)),
            feature_group_count=num_groups,
            use_bias=False,
            kernel_init=hidden_init,
            dtype=self.dtype,
            name=name,
        )


class NeuronClassifiers(nn.Module):
    """The classifiers of all neurons: maps (N, h, w, K · growth) → a logit for each node but the root, (N, h, w, E) in float32.

    A neuron with m children starts with the probability 1/m for each, as a network of one softmax does.
    """

    tree: Tree
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, maps: Float[Array, "n h w d"]) -> Float[Array, "n h w e"]:
        num_neurons, neuron_of = self.tree.num_inner, np.array(self.tree.parents[1:])
        num_children = np.bincount(neuron_of, minlength=num_neurons)[neuron_of]
        prior = -np.log(np.maximum(num_children - 1, 1)).astype(np.float32)
        growth = maps.shape[-1] // num_neurons
        kernel = self.param("kernel", output_init, (growth, len(neuron_of)))
        bias = self.param("bias", lambda key, shape: jnp.asarray(prior), prior.shape)
        # One product for all: each column of the matrix is zero in the rows of other neurons.
        is_its = np.arange(num_neurons)[:, None, None] == neuron_of
        matrix = jnp.where(is_its, kernel, 0).reshape(-1, len(neuron_of))
        return jnp.matmul(maps, matrix.astype(self.dtype), preferred_element_type=jnp.float32) + bias


def descent_logits(neurons: Float[Array, "n h w e"], tree: Tree) -> Float[Array, "n h w c"]:
    """Return class logits whose largest one is that of the class which the descent reaches; see `DSSPN`.

    Args:
      neurons: logits of each node but the root.
      tree: C classes and their groups.
    """
    children = tree.padded_children()
    each = jnp.where(children >= 0, neurons[..., np.maximum(children, 1) - 1], -jnp.inf)  # (N, h, w, K, most)
    margins = neurons - each.max(-1)[..., np.array(tree.parents[1:])]
    # Exact products: an error of rounding could lift a class above that of the descent.
    return jnp.matmul(margins, jnp.asarray(tree.below()[1:], jnp.float32), precision="highest")


def neuron_loss(outputs: Outputs, labels: Integer[levels.Array, "n H W"], supervision: str) -> Float[Array, ""]:
    """Return the binary cross entropy of all neurons, over the neurons that are active in an image.

    A neuron is active in an image if one of the classes below it occurs in the image's labels. For each active neuron, the cross
    entropies of its children are added, and averaged over the labeled positions of the image. These are added over the neurons,
    and averaged over the images.

    Args:
      outputs: those of `DSSPN`.
      labels: (N, H, W) train ids, 255 = void.
      supervision: one of `models.supervision.SUPERVISIONS`.

    Source: Liang et al. 2018: a binary cross entropy per child, on the sub-graph of the concepts that occur in an image.
    Chosen: sums over neurons and children, as above. Positions outside of an active neuron's classes count against all of its
      children.
    """
    logits, classes = fit_to_labels(outputs["neurons"], labels, supervision)
    below, neuron_of = outputs["below"], outputs["neuron_of"]
    is_labeled = classes != levels.dont_care_of(classes)
    truth = below.T[jnp.where(is_labeled, classes, 0)]  # (N, h, w, E)
    entropies = jnp.where(is_labeled[..., None], jax.nn.softplus(logits) - logits * truth, 0.0)
    num_labeled = jnp.maximum(is_labeled.sum((1, 2)), 1)[:, None]
    occurs = (truth & is_labeled[..., None]).any((1, 2))  # (N, E), of nodes
    # A neuron is active if one of its children occurs.
    is_sibling = neuron_of[:, None] == neuron_of
    is_active = (occurs[:, None] & is_sibling).any(-1)
    return (entropies.sum((1, 2)) / num_labeled * is_active).sum(-1).mean()


SPECS = {
    "dsspn": ContextSpec(
        make_pooled(lambda s: DSSPN(make_tree(s.num_classes, s.hierarchy), s.key_width, dtype=s.dtype)),
        is_projected=False,
        classifies=True,
        losses={"neurons": ContextLoss(1.0, neuron_loss)},
        reads_hierarchy=True,
        meaning="DSSPN-style classification down a tree of classes (Liang et al. 2018)",
    ),
}
