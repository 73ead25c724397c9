"""Losses and scores written down position by position in NumPy, with nothing shared with the package."""

import numpy as np

VOID = 255


def softmax(logits):
    values = np.exp(logits - logits.max(-1, keepdims=True))
    return values / values.sum(-1, keepdims=True)


def labeled(classes):
    return [at for at in np.ndindex(classes.shape) if classes[at] != VOID]


def cross_entropy(logits, classes, class_weights=None, smoothing=0.0):
    total, size = 0.0, 0.0
    for at in labeled(classes):
        log_p = np.log(softmax(logits[at]))
        weight = 1.0 if class_weights is None else class_weights[classes[at]]
        total -= weight * ((1 - smoothing) * log_p[classes[at]] + smoothing * log_p.mean())
        size += weight
    return total / size if size else 0.0


def focal(logits, classes, gamma, class_weights=None):
    total, size = 0.0, 0.0
    for at in labeled(classes):
        p = softmax(logits[at])[classes[at]]
        weight = 1.0 if class_weights is None else class_weights[classes[at]]
        total -= weight * (1 - p) ** gamma * np.log(p)
        size += weight
    return total / size if size else 0.0


def unity(logits, is_unit, gamma):
    values = []
    for at in labeled(is_unit):
        p = 1 / (1 + np.exp(-logits[at]))
        p = p if is_unit[at] == 1 else 1 - p
        values.append(-((1 - p) ** gamma) * np.log(p))
    return np.mean(values) if values else 0.0


def dice(logits, classes):
    losses = []
    for c in range(logits.shape[-1]):
        overlap = predicted = size = 0.0
        for at in labeled(classes):
            p = softmax(logits[at])[c]
            overlap += p * (classes[at] == c)
            predicted, size = predicted + p, size + (classes[at] == c)
        if size:
            losses.append(1 - 2 * overlap / (predicted + size))
    return np.mean(losses) if losses else 0.0


def jaccard_loss(wrong, is_class):
    """Return 1 - IoU of a class if exactly the positions `wrong` are predicted wrongly."""
    truth = set(np.flatnonzero(is_class).tolist())
    predicted = truth ^ set(wrong)
    return 1 - len(truth & predicted) / len(truth | predicted)


def lovasz(logits, classes):
    """Take the Lovász extension by its definition: sort, and ask the set function for every prefix."""
    of_images = []
    for image, truth in zip(logits, classes, strict=True):
        at = labeled(truth)
        of_classes = []
        for c in {int(truth[i]) for i in at}:
            is_class = np.array([truth[i] == c for i in at])
            p = np.array([softmax(image[i])[c] for i in at])
            errors = np.where(is_class, 1 - p, p)
            order = np.argsort(-errors, kind="stable")
            values = [jaccard_loss(order[:k].tolist(), is_class) for k in range(len(order) + 1)]
            of_classes.append(sum(errors[i] * (values[k + 1] - values[k]) for k, i in enumerate(order)))
        of_images += [np.mean(of_classes)] if of_classes else []
    return np.mean(of_images) if of_images else 0.0


def near_border(labels, distance):
    n, height, width = labels.shape
    found = np.zeros(labels.shape, bool)
    for b, i, j in labeled(labels):
        for k, m in ((i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)):
            if 0 <= k < height and 0 <= m < width and labels[b, k, m] not in (VOID, labels[b, i, j]):
                rows, columns = (slice(max(0, x - distance), x + distance + 1) for x in (i, j))
                found[b, rows, columns] = True
    return found


def scores(confusion):
    """Return precision, recall and F1 per class (None for 0 / 0), and the frequency-weighted IoU."""
    found = {"precision": [], "recall": [], "f1": []}
    weighted, total = 0.0, sum(map(sum, confusion))
    for c in range(len(confusion)):
        right, truth, predicted = confusion[c][c], sum(confusion[c]), sum(row[c] for row in confusion)
        found["precision"].append(right / predicted if predicted else None)
        found["recall"].append(right / truth if truth else None)
        found["f1"].append(2 * right / (truth + predicted) if truth + predicted else None)
        if truth:
            weighted += truth / total * right / (truth + predicted - right)
    return found, weighted if total else None


def image_scores(truths, predictions, num_classes):
    """Return mIoU^I, mIoU^C, and the IoU of each class averaged over its images (None without one)."""
    of_images, of_classes = [], [[] for _ in range(num_classes)]
    for truth, predicted in zip(truths, predictions, strict=True):
        own = []
        for c in range(num_classes):
            is_class, is_predicted = truth == c, (predicted == c) & (truth != VOID)
            if is_class.any():
                own.append((is_class & is_predicted).sum() / (is_class | is_predicted).sum())
                of_classes[c].append(own[-1])
        of_images += [np.mean(own)] if own else []
    means = [np.mean(values) if values else None for values in of_classes]
    there = [mean for mean in means if mean is not None]
    return np.mean(of_images) if of_images else None, np.mean(there) if there else None, means
