"""The methods of attention, written down from their formulas in NumPy, one image and mostly one position at a time."""

import numpy as np


class Formulas:
    """Layers in NumPy that read the variables of one of our modules by the names of its layers.

    Attributes:
      variables: "params" and "batch_stats" of the module, in float64.
      path: the part of the module that names are relative to.
    """

    def __init__(self, variables: dict, path: tuple[str, ...] = ()):
        self.variables, self.path = variables, path

    def inside(self, *names: str) -> "Formulas":
        return Formulas(self.variables, (*self.path, *names))

    def array(self, collection: str, *names: str):
        found = self.variables[collection]
        for name in (*self.path, *names):
            found = found[name]
        return found

    def linear(self, name: str, x):
        """A 1×1 convolution with a bias."""
        return x @ self.array("params", name, "kernel")[0, 0] + self.array("params", name, "bias")

    def normal(self, name: str, x, is_active: bool = True):
        """A convolution, a normalization by the running statistics, and a ReLU."""
        kernel = self.array("params", name, "conv", "kernel")
        size = len(kernel)
        padded = np.pad(x, ((size // 2,) * 2, (size // 2,) * 2, (0, 0)))
        y = np.zeros((*x.shape[:2], kernel.shape[-1]))
        for a, b in np.ndindex(size, size):
            y += padded[a : a + x.shape[0], b : b + x.shape[1]] @ kernel[a, b]
        bn, stats = self.array("params", name, "bn"), self.array("batch_stats", name, "bn")
        y = (y - stats["mean"]) / np.sqrt(stats["var"] + 1e-5) * bn["scale"] + bn["bias"]
        return np.maximum(y, 0) if is_active else y


def softmax(scores):
    weights = np.exp(scores - scores.max())
    return weights / weights.sum()


def attend(queries, keys, values, scale):
    """Each position of a map of queries attends to rows of keys."""
    found = np.zeros((*queries.shape[:2], values.shape[-1]))
    for at in np.ndindex(*queries.shape[:2]):
        found[at] = softmax(keys @ queries[at] * scale) @ values
    return found


def rows(x):
    return x.reshape(-1, x.shape[-1])


def regions(x, sides):
    """Means of regions; region i of n has the rows ⌊i·h/n⌋ … ⌈(i+1)·h/n⌉ - 1."""
    height, width = x.shape[:2]
    means = []
    for n in sides:
        for i, j in np.ndindex(n, n):
            above, below = i * height // n, -(-(i + 1) * height // n)
            left, right = j * width // n, -(-(j + 1) * width // n)
            means.append(x[above:below, left:right].mean((0, 1)))
    return np.array(means)


def nonlocal_(f: Formulas, c4, c5):
    x = f.normal("reduce", c5)
    query, key, value = (f.linear(name, x) for name in ("query", "key", "value"))
    x = x + f.normal("out", attend(query, rows(key), rows(value), query.shape[-1] ** -0.5), is_active=False)
    return f.normal("merge", np.concatenate([c5, f.normal("smooth", x)], -1))


def position_attention(f: Formulas, x):
    query, key, value = (f.linear(name, x) for name in ("query", "key", "value"))
    return x + f.array("params", "gamma") * attend(query, rows(key), rows(value), 1.0)


def channel_attention(gamma, x):
    """Channels whose product is far below the largest of a row weigh most."""
    maps = rows(x).T
    energy = maps @ maps.T
    found = np.array([softmax(energy[i].max() - energy[i]) @ maps for i in range(len(maps))])
    return x + gamma * found.T.reshape(x.shape)


def danet_branches(f: Formulas, c5):
    position = position_attention(f.inside("position"), f.normal("position_reduce", c5))
    channel = channel_attention(f.array("params", "channel", "gamma"), f.normal("channel_reduce", c5))
    return f.normal("position_smooth", position), f.normal("channel_smooth", channel)


def danet(f: Formulas, c4, c5):
    return sum(danet_branches(f, c5))


def find_bases(features, bases):
    """Three iterations of expectation (shares of the bases) and maximization (the bases' weighted means, of unit length)."""
    for _ in range(3):
        shares = np.array([softmax(feature @ bases) for feature in features])
        bases = features.T @ (shares / shares.sum(0))
        bases = bases / np.linalg.norm(bases, axis=0)
    return bases, shares


def ema_unit(f: Formulas, x):
    bases, shares = find_bases(rows(f.linear("project", x)), f.array("batch_stats", "bases"))
    rebuilt = np.maximum(shares @ bases.T, 0).reshape(x.shape)
    return np.maximum(x + f.normal("out", rebuilt, is_active=False), 0)


def emanet(f: Formulas, c4, c5):
    return f.normal("smooth", ema_unit(f.inside("unit"), f.normal("reduce", c5)))


def emanet_mmseg(f: Formulas, c4, c5):
    return f.normal("merge", np.concatenate([c5, emanet(f, c4, c5)], -1))


def apcnet(f: Formulas, c4, c5):
    contexts = [c5]
    for scale in (1, 2, 3, 6):
        part = f.inside(f"scale_{scale}")
        x = part.normal("reduce", c5)
        pooled = part.normal("regions", regions(c5, [scale])[None])[0]
        whole = part.normal("global", x.mean((0, 1), keepdims=True))
        affinity = 1 / (1 + np.exp(-part.linear("affinity", x + whole)))
        contexts.append(part.normal("fusion", np.maximum(part.normal("residual", affinity @ pooled) + x, 0)))
    return f.normal("merge", np.concatenate(contexts, -1))


def ann(f: Formulas, c4, c5):
    fusion, sides = f.inside("fusion"), (1, 3, 6, 8)
    query, key, value = fusion.normal("query", c5), fusion.normal("key", c4), fusion.linear("value", c4)
    attended = attend(query, regions(key, sides), regions(value, sides), query.shape[-1] ** -0.5)
    fused = fusion.normal("merge", np.concatenate([fusion.linear("out", attended), c5], -1), is_active=False)
    own = f.inside("self_attention")
    x = own.normal("reduce", fused)
    key, value = own.normal("key", x), own.linear("value", x)
    attended = attend(key, regions(key, sides), regions(value, sides), key.shape[-1] ** -0.5)
    return own.normal("merge", np.concatenate([own.linear("out", attended), x], -1))


FORMULAS = {
    "nonlocal": nonlocal_,
    "danet": danet,
    "emanet": emanet,
    "emanet_mmseg": emanet_mmseg,
    "apcnet": apcnet,
    "ann": ann,
}
