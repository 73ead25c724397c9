"""EncNet, CFNet, ACFNet and CPNet written down plainly in NumPy: from the formulas, one image at a time, in float64.

Each twin takes the variables of one module and the backbone's map (h, w, D), and returns the module's map and its outputs. Batch
normalizations use their running statistics.
"""

import numpy as np

EPSILON = 1e-5


class Layers:
    """The layers of one module by name."""

    def __init__(self, params, stats):
        self.params, self.stats = params, stats

    def inner(self, name):
        return Layers(self.params[name], self.stats.get(name, {}))

    def conv(self, name, x, dilation=1, is_active=True):
        """A convolution of odd size with its bias or its normalization, and a ReLU after a normalization if `is_active`."""
        layer = self.params[name]
        y = convolve(x, (layer.get("conv") or layer)["kernel"], dilation)
        if "bias" in layer:
            return y + layer["bias"]
        y = normalize(y, layer["bn"], self.stats[name]["bn"])
        return np.maximum(y, 0) if is_active else y

    def depthwise(self, name, x):
        """A convolution of each channel by itself, with a bias."""
        layer = self.params[name]
        each = [convolve(x[..., c : c + 1], layer["kernel"][..., c : c + 1]) for c in range(x.shape[-1])]
        return np.concatenate(each, -1) + layer["bias"]

    def norm(self, name, x):
        return normalize(x, self.params[name], self.stats[name])


def convolve(x, kernel, dilation=1):
    """Add up the taps of a kernel (rows, columns, in, out) over a map that zeros surround."""
    height, width = x.shape[:2]
    pads = [dilation * (side // 2) for side in kernel.shape[:2]]
    padded = np.pad(x, (*((pad, pad) for pad in pads), (0, 0)))
    taps = [
        padded[a * dilation : a * dilation + height, b * dilation : b * dilation + width] @ kernel[a, b]
        for a, b in np.ndindex(*kernel.shape[:2])
    ]
    return sum(taps)


def normalize(x, layer, stats):
    return (x - stats["mean"]) / np.sqrt(stats["var"] + EPSILON) * layer["scale"] + layer["bias"]


def softmax(x, axis=-1):
    weights = np.exp(x - x.max(axis, keepdims=True))
    return weights / weights.sum(axis, keepdims=True)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def encode(z, codewords, factors):
    """Residuals to each codeword, from the differences themselves."""
    differences = z.reshape(-1, z.shape[-1])[:, None] - codewords
    weights = softmax(factors * (differences**2).sum(-1))
    return (weights[..., None] * differences).sum(0)


def encoding_module(layers, x):
    z = layers.conv("project", x)
    residuals = encode(z, layers.params["codewords"], layers.params["factors"])
    code = np.maximum(layers.norm("norm", residuals.T), 0).mean(-1)
    gate, presence = (
        code @ layers.params[name]["kernel"] + layers.params[name]["bias"] if name in layers.params else None
        for name in ("gate", "presence")
    )
    return np.maximum(x + x * sigmoid(gate), 0), presence


def encnet(layers, features):
    x, presence = encoding_module(layers.inner("encoding"), layers.conv("reduce", features))
    return x, {"presence": presence}


def pool(x):
    """Average pooling, 3 × 3 at stride 2; positions outside of the map do not count."""
    height, width = x.shape[:2]
    pooled = np.zeros(((height + 1) // 2, (width + 1) // 2, x.shape[-1]))
    for i, j in np.ndindex(*pooled.shape[:2]):
        pooled[i, j] = x[max(2 * i - 1, 0) : 2 * i + 2, max(2 * j - 1, 0) : 2 * j + 2].mean((0, 1))
    return pooled


def co_occurrent_features(layers, x, num_heads=8):
    height, width, channels = x.shape
    pooled, size = pool(x), channels // num_heads
    queries, keys, values = (
        layers.conv(name, y).reshape(-1, num_heads, layers.params[name]["bias"].size // num_heads)
        for name, y in (("query", x), ("query", pooled), ("value", pooled))
    )
    num_mixtures = queries.shape[-1] // size
    found = np.zeros((height * width, num_heads, size))
    for head in range(num_heads):
        q, k = queries[:, head], keys[:, head]
        shares = [1.0]
        if num_mixtures > 1:
            shares = softmax(layers.params["mixture"] @ q.mean(0))
        for m, share in enumerate(shares):
            part = slice(m * size, (m + 1) * size)
            weights = softmax(q[:, part] @ k[:, part].T / np.sqrt(q.shape[-1]))
            found[:, head] += share * weights @ values[:, head]
    return x + layers.conv("out", found.reshape(height, width, channels), is_active=False)


def cfnet(layers, features):
    x = layers.conv("reduce", features)
    mean = layers.conv("global", x.mean((0, 1), keepdims=True))
    joined = np.concatenate([np.broadcast_to(mean, x.shape), co_occurrent_features(layers.inner("attention"), x)], -1)
    x, presence = encoding_module(layers.inner("encoding"), joined)
    return x, {} if presence is None else {"presence": presence}


def acfnet(layers, features):
    branches = [layers.conv("pool_1", features)]
    branches += [layers.conv(f"pool_{i}", features, dilation=rate) for i, rate in ((2, 12), (3, 24), (4, 36))]
    mean = layers.conv("pool_mean", features.mean((0, 1), keepdims=True))
    x = np.concatenate([*branches, np.broadcast_to(mean, branches[0].shape)], -1)
    coarse = layers.conv("coarse_classify", layers.conv("coarse_2", layers.conv("coarse_1", x)))
    y, probs = layers.conv("feature", x), softmax(coarse)
    mixed = np.zeros_like(y)
    for k in range(coarse.shape[-1]):
        center = (probs[..., k, None] * y).sum((0, 1)) / probs[..., k].sum()
        mixed += probs[..., k, None] * center
    merged = layers.conv("merge", np.concatenate([layers.conv("attention", mixed), x], -1))
    return merged, {"coarse": coarse}


def cpnet(layers, features, sample):
    """As the others; `sample` brings a map to the size of the training map."""
    inner = layers.inner("aggregation")
    x = inner.conv("reduce", features)
    first = inner.depthwise("first_2", inner.depthwise("first_1", x))
    second = inner.depthwise("second_2", inner.depthwise("second_1", x))
    value = np.maximum(inner.norm("norm", first + second), 0)
    prior = layers.conv("prior", value, is_active=False)
    columns = sample(value).reshape(-1, value.shape[-1])
    probs = sigmoid(prior)
    same, other = (weights @ columns / len(columns) for weights in (probs, 1 - probs))
    contexts = [layers.conv("intra", same), layers.conv("inter", other)]
    return layers.conv("merge", np.concatenate([features, *contexts], -1)), {"prior": prior}


def affinity_loss(probs, labels):
    """The affinity loss of priors (N, positions, positions) for labels (N, positions), row by row."""
    crosses, recalls, specificities, precisions = [], [], [], []
    for prior, classes in zip(probs, labels, strict=True):
        for i, row in enumerate(prior):
            is_same = classes == classes[i]
            is_partner = is_same & (np.arange(len(row)) != i)
            crosses.append(-np.log(np.where(is_same, row, 1 - row)).mean())
            if is_partner.any():
                recalls.append(row[is_partner].sum() / is_partner.sum())
                precisions.append(row[is_partner].sum() / row.sum())
            if not is_same.all():
                specificities.append((1 - row)[~is_same].sum() / (~is_same).sum())
    logs = [-np.log(ratios).mean() if ratios else 0.0 for ratios in (recalls, specificities, precisions)]
    return np.mean(crosses) + sum(logs)
