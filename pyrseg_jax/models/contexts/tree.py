"""The tree that a hierarchy of classes makes: a root, groups, and the classes as leaves."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int32

Groups = tuple[str, ...]


class Tree(NamedTuple):
    """A tree over C classes with K inner nodes.

    Node 0 is the root, the nodes 1 … K-1 are the groups, and K … K+C-1 are the classes. The groups are in the order of their depth,
    so a parent comes before its children; groups of one depth are in the order of the first class that they hold.

    Attributes:
      num_classes: C.
      parents: the parent of each node; -1 for the root.
      depths: the number of groups around each inner node, and the root: 0 for the root.
    """

    num_classes: int
    parents: tuple[int, ...]
    depths: tuple[int, ...]

    @property
    def num_nodes(self) -> int:
        """Return K + C."""
        return len(self.parents)

    @property
    def num_inner(self) -> int:
        """Return K, the number of nodes that have children."""
        return len(self.depths)

    def at_depth(self, depth: int) -> list[int]:
        """Return the inner nodes of a depth; their numbers are consecutive."""
        return [node for node, its_depth in enumerate(self.depths) if its_depth == depth]

    def ancestors(self, node: int) -> list[int]:
        """Return the inner nodes above a node, the root first."""
        above = []
        while (node := self.parents[node]) >= 0:
            above.append(node)
        return above[::-1]

    def children(self, node: int) -> list[int]:
        """Return the nodes whose parent this is."""
        return [child for child, parent in enumerate(self.parents) if parent == node]

    def below(self) -> Bool[np.ndarray, "m c"]:
        """Return for each node and class whether the class is the node or lies below it."""
        found = np.zeros((self.num_nodes, self.num_classes), bool)
        for c in range(self.num_classes):
            leaf = self.num_inner + c
            found[[leaf, *self.ancestors(leaf)], c] = True
        return found

    def padded_children(self) -> Int32[np.ndarray, "k most"]:
        """Return the children of each inner node, filled up with -1."""
        children = [self.children(node) for node in range(self.num_inner)]
        found = np.full((self.num_inner, max(map(len, children))), -1, np.int32)
        for node, its_children in enumerate(children):
            found[node, : len(its_children)] = its_children
        return found

    def normalized_adjacency(self) -> Float[np.ndarray, "m m"]:
        """Return D^-½ (A + I) D^-½ of the undirected tree; D holds the row sums of A + I.

        Source: Kipf and Welling 2017, Eq. (2).
        """
        linked = np.eye(self.num_nodes)
        for child, parent in enumerate(self.parents[1:], 1):
            linked[child, parent] = linked[parent, child] = 1
        scale = linked.sum(1) ** -0.5
        return (scale[:, None] * linked * scale).astype(np.float32)


@functools.lru_cache
def make_tree(num_classes: int, hierarchy: tuple[Groups, ...] | None) -> Tree:
    """Make the tree of a hierarchy.

    Args:
      num_classes: C.
      hierarchy: for each class, the names of the groups that hold it, outermost first; None makes all classes children of the root.

    Raises:
      ValueError: if the hierarchy is not of C classes.
    """
    paths: Sequence[Groups] = hierarchy if hierarchy is not None else ((),) * num_classes
    if len(paths) != num_classes:
        raise ValueError(f"hierarchy: expected the groups of {num_classes} classes, found those of {len(paths)}")
    prefixes = {path[:end]: None for path in paths for end in range(len(path) + 1)}
    inner = sorted(prefixes, key=len)  # stable: the first class that a group holds decides within a depth
    number = {path: node for node, path in enumerate(inner)}
    parents = [-1, *(number[path[:-1]] for path in inner[1:]), *(number[path] for path in paths)]
    return Tree(num_classes, tuple(parents), tuple(map(len, inner)))
