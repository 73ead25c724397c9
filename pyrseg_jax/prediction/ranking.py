"""Rank images: those whose labels look wrong, or unlabeled ones that are worth labeling next."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from pyrseg_jax.data.decode import decode_masked
from pyrseg_jax.data.image_space import picture_of
from pyrseg_jax.data.label_space import LabelSpace
from pyrseg_jax.data.loading import load_pair
from pyrseg_jax.data.source import Source
from pyrseg_jax.data.threads import THREADS, ordered_map
from pyrseg_jax.errors import UserError, naming_file
from pyrseg_jax.evaluation.acquisition import choose_diverse, signature_of
from pyrseg_jax.evaluation.label_errors import Region, find_evidence, pair_counts, score_images, surprise_of
from pyrseg_jax.evaluation.uncertainty import Measured
from pyrseg_jax.prediction.listing import Item
from pyrseg_jax.prediction.reading import read_bytes
from pyrseg_jax.reporting.contact_sheet import Row, contact_sheet, fit_panel, with_box
from pyrseg_jax.reporting.palette import colors_of, overlay, probability_colors
from pyrseg_jax.run.model_predictor import ModelPredictor

MOST_COUNTED = 256  # images whose mistakes say which ones are usual


class RankedImage(NamedTuple):
    """An image with its score.

    place: its place in the split, or in the list of images.
    name: of the image.
    score: by which it is ranked.
    entropy, disagreement: means over the pixels, each 0 … 1; disagreement is None for a network without pyramid.
    doubt: the mean over the pixels, in nats; None for an unlabeled image.
    regions: whose labels look wrong, the worst first; empty for an unlabeled image.
    """

    place: int
    name: str
    score: float
    entropy: float
    disagreement: float | None
    doubt: float | None = None
    regions: tuple[Region, ...] = ()


def rank_labels(source: Source, predictor: ModelPredictor, progress: Callable[[], None]) -> list[RankedImage]:
    """Return the images of a split, those first whose labels look most wrong; see `evaluation.label_errors`.

    Up to 256 images, spread over the split, are seen twice: they tell which mistakes are usual for the network.

    Raises:
      UserError: naming the file, if an image or label cannot be read.
    """
    space = predictor.label_space

    def start(index: int) -> tuple[tuple, Callable[[], Measured]]:
        record, pair = load_pair(source, index, space)
        return (index, record["name"], pair.label), lambda: predictor.measure(pair.image, pair.label)()

    counts = np.zeros((space.num_classes, space.num_classes), np.int64)
    for (_, _, truth), found in _measured(start, range(0, len(source), -(-len(source) // MOST_COUNTED) or 1)):
        counts += pair_counts(truth, found.labels, space.num_classes)
    surprise, measured, evidence = surprise_of(counts), [], []
    for (index, name, truth), found in _measured(start, range(len(source))):
        assert found.doubt is not None, "there is a label map"
        evidence.append(find_evidence(truth, found.labels, found.doubt, found.confidence, surprise))
        measured.append(RankedImage(index, name, 0.0, *_means(found), float(found.doubt.mean())))
        progress()
    ranked = [
        image._replace(score=score, regions=regions)
        for image, (score, regions) in zip(measured, score_images(evidence), strict=True)
    ]
    return sorted(ranked, key=lambda image: -image.score)


def rank_unlabeled(
    items: Sequence[Item], predictor: ModelPredictor, num_chosen: int, progress: Callable[[], None]
) -> tuple[list[RankedImage], list[str]]:
    """Return images in the order in which they are worth labeling, and what is wrong with those that cannot be read.

    The score of an image is the mean of its entropy plus the mean of its disagreement. `acquisition.choose_diverse` chooses the
    first `num_chosen`.
    """
    problems: list[str] = []
    found, signatures = [], []
    for (index, name), measured in _measured(
        lambda i: _start_unlabeled(items, i, predictor, problems), range(len(items))
    ):
        progress()
        if measured is None:
            continue
        entropy, disagreement = _means(measured)
        found.append(RankedImage(index, name, entropy + (disagreement or 0.0), entropy, disagreement))
        signatures.append(signature_of(measured.labels, predictor.label_space.num_classes))
    if not found:
        return [], problems
    order = choose_diverse([image.score for image in found], signatures, num_chosen)
    return [found[i] for i in order], problems


def _start_unlabeled(
    items: Sequence[Item], index: int, predictor: ModelPredictor, problems: list[str]
) -> tuple[tuple, Callable[[], Measured | None]]:
    item = items[index]
    try:
        image = _read(item, predictor)
    except UserError as error:
        problems.append(str(error))
        return (index, item.key), lambda: None
    return (index, item.key), lambda: predictor.measure(image)()


def _read(item: Item, predictor: ModelPredictor) -> np.ndarray:
    with naming_file(str(item.path), "cannot be ranked", "replace it, or move it out of the folder"):
        return decode_masked(read_bytes(item.path), str(item.path), predictor.image_space).image


def _measured(
    start: Callable[[int], tuple[tuple, Callable[[], Any]]], indices: Sequence[int]
) -> Iterator[tuple[tuple, Any]]:
    """Read ahead with threads, and measure one image after another."""
    for about, measure in ordered_map(start, indices, THREADS):
        yield about, measure()


def _means(found: Measured) -> tuple[float, float | None]:
    return float(found.entropy.mean()), None if found.disagreement is None else float(found.disagreement.mean())


# ── What is written ──


def to_json(ranked: Sequence[RankedImage], space: LabelSpace, about: dict) -> bytes:
    """Return everything that is known about the images, in the order of the ranking."""
    images = []
    for rank, image in enumerate(ranked, 1):
        regions = [_describe(region, space) for region in image.regions]
        values = {"rank": rank} | image._asdict() | {"regions": regions}
        images.append({key: value for key, value in values.items() if key != "place"})
    return (json.dumps(about | {"images": images}, indent=1, ensure_ascii=False) + "\n").encode(errors="replace")


def images_csv(ranked: Sequence[RankedImage]) -> bytes:
    """Return one line per image."""
    header = ("rank", "image", "score", "entropy", "disagreement", "doubt", "regions")
    rows = ((rank, image.name, *map(_short, image[2:6]), len(image.regions)) for rank, image in enumerate(ranked, 1))
    return _csv(header, rows)


def regions_csv(ranked: Sequence[RankedImage], space: LabelSpace) -> bytes:
    """Return one line per region, the worst first, over all images."""
    header = (
        "rank",
        "image",
        "score",
        "label",
        "predicted",
        "pixels",
        "left",
        "top",
        "width",
        "height",
        "doubt",
        "confidence",
    )
    rows = (
        (
            *(rank, name, _short(r.score), space.names[r.label], space.names[r.predicted], r.num_pixels),
            *(*r.box, _short(r.doubt), _short(r.confidence)),
        )
        for rank, (name, r) in enumerate(worst_regions(ranked), 1)
    )
    return _csv(header, rows)


def worst_regions(ranked: Sequence[RankedImage]) -> list[tuple[str, Region]]:
    """Return the regions of all images with the names of these, the worst first."""
    found = [(image.name, region) for image in ranked for region in image.regions]
    return sorted(found, key=lambda pair: -pair[1].score)


def _describe(region: Region, space: LabelSpace) -> dict:
    return region._asdict() | {
        "label": space.names[region.label],
        "predicted": space.names[region.predicted],
        "box": dict(zip(("left", "top", "width", "height"), region.box, strict=True)),
    }


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.5g}"


def _csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().encode(errors="replace")


def draw_labels(ranked: Sequence[RankedImage], source: Source, predictor: ModelPredictor, title: str) -> bytes:
    """Draw the worst region of each image: the photograph, the label map, and the prediction."""
    space = predictor.label_space
    colors, rows, maps = colors_of(space), [], []
    for rank, image in enumerate(ranked, 1):
        if not image.regions:
            break
        _, pair = load_pair(source, image.place, space)
        labels, worst = predictor.measure(pair.image)().labels, image.regions[0]
        picture = np.ascontiguousarray(picture_of(pair.image))
        named = f"labeled {space.names[worst.label]}, predicted {space.names[worst.predicted]}"
        panels = [picture, overlay(picture, pair.label, colors), overlay(picture, labels, colors)]
        rows.append(
            Row(
                f"{rank}. {image.name} (score {image.score:.2f}): {named} (score {worst.score:.2f})",
                tuple(fit_panel(with_box(panel, worst.box)) for panel in panels),
            )
        )
        maps += [pair.label, labels]
    return _encode(contact_sheet(title, "the image, its labels, and the prediction", rows, maps, space))


def draw_unlabeled(
    ranked: Sequence[RankedImage], items: Sequence[Item], predictor: ModelPredictor, title: str
) -> bytes:
    """Draw images with their predictions and their entropy."""
    space = predictor.label_space
    colors, rows, maps = colors_of(space), [], []
    for rank, image in enumerate(ranked, 1):
        array = _read(items[image.place], predictor)
        found, picture = predictor.measure(array)(), np.ascontiguousarray(picture_of(array))
        told = "" if image.disagreement is None else f", disagreement {image.disagreement:.3f}"
        panels = [picture, overlay(picture, found.labels, colors), probability_colors(found.entropy)]
        rows.append(Row(f"{rank}. {image.name}: entropy {image.entropy:.3f}{told}", tuple(map(fit_panel, panels))))
        maps.append(found.labels)
    return _encode(
        contact_sheet(title, "the image, the prediction, and its entropy (bright: unsure)", rows, maps, space)
    )


def _encode(picture: Any) -> bytes:
    content = io.BytesIO()
    picture.save(content, "PNG")
    return content.getvalue()
