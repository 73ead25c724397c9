"""SGR-style reasoning over the tree of classes (Liang et al. 2018, Symbolic Graph Reasoning), on the features of any backbone."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from pyrseg_jax.models.backbones.contract import Features
from pyrseg_jax.models.contexts.atrous import AtrousSum
from pyrseg_jax.models.contexts.attention import attend
from pyrseg_jax.models.contexts.contract import ContextSpec, Logits, make_pooled
from pyrseg_jax.models.contexts.tree import Tree, make_tree
from pyrseg_jax.models.layers import biased_conv, hidden_init, output_init

WORD_WIDTH = 300  # numbers in a node's vector; those of fastText have as many
# How a position takes from the nodes what they have learned.
MAPPINGS = {
    "interaction": "weights by the product of a query of the position and a key of the node",
    "additive_nodes": "a score of the node plus a score of the position, softmax over nodes: equal weights at all positions",
    "additive_positions": "the same sum, softmax over positions, then divided by its sum over nodes: equal weights of all nodes",
}


class SymbolicReasoning(nn.Module):
    """Let positions vote for nodes of a tree, let the nodes exchange what they got, and add it to the positions.

    With positions i of the map X, M nodes n, and node vectors S:

      vote:   H_n = ReLU(Σ_i a_in X_i W), a_i = softmax over nodes of a classifier of X_i
      reason: H' = ReLU(Â [H ; S] W_g), Â = D^-½ (A + I) D^-½ of the tree's links A
      map:    X_i + ReLU(Σ_n m_in H'_n W_sp), with weights m by `mapping`

    Attributes:
      tree: the classes and their groups; all of its nodes take part.
      mapping: one of `MAPPINGS`.

    Source: Liang et al. 2018, Symbolic Graph Reasoning Meets Convolutions: the three steps of a layer.
    Chosen: A is the tree of the data set's classes, and S is learned; the published A is a knowledge graph, and the published S are
      fixed word vectors.
    Chosen: the mapping weights are softmax_n of (X_i W_q) · (H'_n W_k) / √width. The published score, a linear function of
      [H'_n ; X_i], is a sum u · H'_n + v · X_i. A softmax over nodes cancels the second term, so all positions get the same; a
      softmax over positions cancels the first one, and dividing by the sum over nodes then makes all weights 1/M. Both are
      available as `additive_nodes` and `additive_positions`.
    Chosen: W_k and W_sp start with small weights, because H sums over all positions.
    """

    tree: Tree
    mapping: str = "interaction"
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        n, h, w, width = x.shape
        num_nodes = self.tree.num_nodes

        def linear(y: Array, name: str, init: nn.initializers.Initializer = hidden_init) -> Array:
            layer = nn.Conv(width, (1, 1), use_bias=False, kernel_init=init, dtype=self.dtype, name=name)
            return layer(y)

        votes = biased_conv(num_nodes, dtype=self.dtype, name="vote")(x).astype(jnp.float32)
        share = nn.softmax(votes, axis=-1).reshape(n, h * w, num_nodes)
        # Float32, because sums over thousands of positions lose their last terms in bfloat16.
        gathered = share.swapaxes(1, 2) @ x.reshape(n, h * w, width).astype(jnp.float32)
        nodes = nn.relu(linear(gathered[:, None].astype(x.dtype), "gather"))  # (N, 1, M, width), a map of one row

        vectors = self.param("node_vectors", nn.initializers.normal(1.0), (num_nodes, WORD_WIDTH))
        vectors = jnp.broadcast_to(vectors.astype(nodes.dtype), (n, 1, num_nodes, WORD_WIDTH))
        known = jnp.concatenate([nodes, vectors], axis=-1)
        adjacency = jnp.asarray(self.tree.normalized_adjacency(), nodes.dtype)
        reasoned = nn.relu(linear(adjacency @ known, "reason"))

        values = linear(reasoned, "value", output_init)[:, 0]
        if self.mapping == "interaction":
            mapped = attend(linear(x, "query"), linear(reasoned, "key", output_init)[:, 0], values)
        else:
            scores = [
                nn.Conv(1, (1, 1), use_bias=False, kernel_init=output_init, dtype=self.dtype, name=name)(y)
                for name, y in (("score_node", reasoned), ("score_position", x))
            ]
            weights = additive_weights(scores[0].reshape(n, -1), scores[1].reshape(n, -1), self.mapping)
            mapped = (weights.astype(values.dtype) @ values).reshape(n, h, w, width)
        return x + nn.relu(mapped)


def additive_weights(
    node_scores: Float[Array, "n m"], position_scores: Float[Array, "n p"], mapping: str
) -> Float[Array, "n p m"]:
    """Return the weights of nodes at positions, taken literally from the sum of their scores; see `MAPPINGS`."""
    scores = node_scores[:, None].astype(jnp.float32) + position_scores[:, :, None].astype(jnp.float32)
    if mapping == "additive_nodes":
        return nn.softmax(scores, axis=2)
    weights = nn.softmax(scores, axis=1)
    return weights / weights.sum(axis=2, keepdims=True)


class SGR(nn.Module):
    """Reasoning over the tree of classes on a reduced map (N, h, w, width).

    Attributes:
      tree: the classes and their groups.
      width: channels inside and of the output; 256 in the description.
      mapping: one of `MAPPINGS`.

    Source: Liang et al. 2018.
    Chosen: `AtrousSum` reduces the backbone's map, one layer of reasoning follows, and then the classifier.
    """

    tree: Tree
    width: int
    mapping: str = "interaction"
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, features: Features, auxiliary: Logits | None, train: bool) -> Float[Array, "n h w {self.width}"]:
        if self.mapping not in MAPPINGS:
            raise ValueError(f"mapping={self.mapping!r}: expected one of {', '.join(map(repr, MAPPINGS))}")
        x = AtrousSum(self.width, dtype=self.dtype, name="reduce")(features.final, train)
        return SymbolicReasoning(self.tree, self.mapping, self.dtype, name="reasoning")(x)


SPECS = {
    "sgr": ContextSpec(
        make_pooled(lambda s: SGR(make_tree(s.num_classes, s.hierarchy), s.key_width, dtype=s.dtype)),
        is_projected=False,
        reads_hierarchy=True,
        meaning="SGR-style reasoning over a tree of classes (Liang et al. 2018)",
    ),
}
