"""Slow plain twins: the method written down pixel by pixel in NumPy, with nothing shared with the package."""

import numpy as np

DONT_CARE = 255


def build_targets(label_map, strides, void):
    """Read every pixel of every cell at every level."""
    n, height, width = label_map.shape
    semantic, unity = [], []
    for level, s in enumerate(strides):
        level_semantic = np.full((n, height // s, width // s), DONT_CARE)
        level_unity = np.full_like(level_semantic, DONT_CARE)
        for index in np.ndindex(level_semantic.shape):
            b, i, j = index
            cell = label_map[b, i * s : (i + 1) * s, j * s : (j + 1) * s]
            if level == len(strides) - 1:
                level_semantic[index] = cell[s // 2, s // 2]
                continue
            classes = set(cell.ravel().tolist()) - {DONT_CARE}
            has_void = (cell == DONT_CARE).any()
            if len(classes) == 0:
                continue
            is_single = len(classes) == 1
            if is_single and has_void and void == "ignore":
                continue
            is_unit = is_single and not (has_void and void == "mixed")
            level_unity[index] = int(is_unit)
            if is_unit:
                level_semantic[index] = classes.pop()
        semantic.append(level_semantic)
        if level < len(strides) - 1:
            unity.append(level_unity)
    return semantic, unity


def specialize(semantic, unity, unity_probs, procedure, threshold):
    """Ask each cell for all of its ancestors."""
    semantic_out, unity_out = [s.copy() for s in semantic], [u.copy() for u in unity]
    if procedure == "raw":
        return semantic_out, unity_out
    for level in range(len(semantic)):
        for b, i, j in np.ndindex(semantic[level].shape):
            is_done = False
            for ancestor in range(level):
                up = 2 ** (level - ancestor)
                at = (b, i // up, j // up)
                is_unit = unity[ancestor][at] == 1
                is_predicted = unity_probs[ancestor][at] >= threshold
                is_done |= is_unit and (procedure == "gt" or is_predicted)
            if is_done:
                semantic_out[level][b, i, j] = DONT_CARE
                if level < len(unity):
                    unity_out[level][b, i, j] = DONT_CARE
    return semantic_out, unity_out


def loss(semantic_logits, unity_logits, semantic, unity):
    """Eq. (1), cell by cell in float64."""

    def mean(values):
        return sum(values) / len(values) if values else 0.0

    cross_entropies = []
    for logits, target in zip(semantic_logits, semantic, strict=True):
        values = []
        for index in np.ndindex(target.shape):
            if target[index] != DONT_CARE:
                x = logits[index].astype(np.float64)
                values.append(np.log(np.exp(x - x.max()).sum()) + x.max() - x[target[index]])
        cross_entropies.append(mean(values))
    binary = []
    for logits, target in zip(unity_logits, unity, strict=True):
        values = []
        for index in np.ndindex(target.shape):
            if target[index] != DONT_CARE:
                p = 1 / (1 + np.exp(-logits[index].astype(np.float64)))
                values.append(-np.log(p if target[index] == 1 else 1 - p))
        binary.append(mean(values))
    return mean(cross_entropies) + mean(binary), cross_entropies, binary


def fuse(semantic_probs, unity_probs, threshold):
    """Walk down from the root for each position of the finest level."""
    finest = semantic_probs[-1]
    probs, levels = np.zeros_like(finest), np.zeros(finest.shape[:-1], int)
    num_levels = len(semantic_probs)
    for b, i, j in np.ndindex(finest.shape[:-1]):
        for level in range(num_levels):
            up = 2 ** (num_levels - 1 - level)
            at = (b, i // up, j // up)
            if level == num_levels - 1 or unity_probs[level][at] >= threshold:
                probs[b, i, j], levels[b, i, j] = semantic_probs[level][at], level
                break
    return probs, levels


def confusion_matrix(truth, predicted, num_classes):
    counts = np.zeros((num_classes, num_classes), int)
    for t, p in zip(np.ravel(truth).tolist(), np.ravel(predicted).tolist(), strict=True):
        if t != DONT_CARE:
            counts[t, p] += 1
    return counts


def bilinear(x, size):
    """Half-pixel bilinear interpolation of (h, w, c), pixel by pixel."""
    h, w = x.shape[:2]
    out = np.zeros((*size, x.shape[2]))
    for i, j in np.ndindex(*size):
        y = min(max((i + 0.5) * h / size[0] - 0.5, 0), h - 1)
        z = min(max((j + 0.5) * w / size[1] - 0.5, 0), w - 1)
        y0, z0 = int(y), int(z)
        y1, z1 = min(y0 + 1, h - 1), min(z0 + 1, w - 1)
        top = x[y0, z0] * (1 - (z - z0)) + x[y0, z1] * (z - z0)
        bottom = x[y1, z0] * (1 - (z - z0)) + x[y1, z1] * (z - z0)
        out[i, j] = top * (1 - (y - y0)) + bottom * (y - y0)
    return out
