"""Choose the images that the report shows: the worst, the best, and those that show the most frequent confusions."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from pyrseg_jax.evaluation.image_scores import ImageCounts, miou_of_images

WORST, BEST = "worst", "best"


class Confusion(NamedTuple):
    """Pixels of one class that were given another.

    truth, predicted: indices of the classes.
    pixels: their number in the whole split.
    """

    truth: int
    predicted: int
    pixels: int


class Chosen(NamedTuple):
    """An image to show.

    number: its index in the counts of the images.
    why: `worst`, `best`, or the confusion that it shows.
    """

    number: int
    why: str | Confusion


def most_frequent(confusion: Int64[np.ndarray, "c c"], most: int) -> list[Confusion]:
    """Return the largest entries beside the diagonal of a confusion matrix (row = truth), the largest first."""
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = zip(*np.unravel_index(order, wrong.shape), strict=True)
    return [Confusion(int(t), int(p), int(wrong[t, p])) for t, p in pairs if wrong[t, p]]


def bound_of(counts: Int64[np.ndarray, "n c 3"], confusion: Confusion) -> Int64[np.ndarray, "n"]:
    """Return how many pixels of each image may be such a confusion at most.

    The counts of an image hold no pairs of classes. But no more pixels of a class can be given another than it has lost, nor more
    than the other has won.
    """
    lost = counts[:, confusion.truth, 2] - counts[:, confusion.truth, 0]
    won = counts[:, confusion.predicted, 1] - counts[:, confusion.predicted, 0]
    return np.minimum(lost, won)


def choose(images: ImageCounts, confusions: Sequence[Confusion], most: int) -> list[Chosen]:
    """Choose at most `most` images: five twelfths are the worst, a quarter the best, and the others show the confusions."""
    score = miou_of_images(images.counts)
    order = [int(i) for i in np.argsort(score, kind="stable") if not np.isnan(score[i])]
    most = min(most, len(order))
    found = {i: Chosen(i, WORST) for i in order[: _rounded_up(5 * most, 12)]}
    best = [i for i in reversed(order) if i not in found][: most // 4]
    found |= {i: Chosen(i, BEST) for i in best}
    for confusion in confusions:
        if len(found) == most:
            break
        bound = bound_of(images.counts, confusion)
        first = int(bound.argmax())
        if bound[first] and first not in found and not np.isnan(score[first]):
            found[first] = Chosen(first, confusion)
    for i in order:  # where there are fewer confusions than places
        if len(found) == most:
            break
        found.setdefault(i, Chosen(i, WORST))
    return _in_order_of_score(list(found.values()), score)


def _in_order_of_score(chosen: list[Chosen], score: Float64[np.ndarray, "n"]) -> list[Chosen]:
    """Sort the worst images from the worst on, and the best ones from the best on; the others stay in the order of confusions."""
    worst = sorted((c for c in chosen if c.why == WORST), key=lambda c: score[c.number])
    best = sorted((c for c in chosen if c.why == BEST), key=lambda c: -score[c.number])
    return [*worst, *best, *(c for c in chosen if isinstance(c.why, Confusion))]


def _rounded_up(part: int, whole: int) -> int:
    return -(-part // whole)
