"""The section of the page about labels that look wrong, if the run has a ranking of them."""

import logging
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from etils import epath
from PIL import Image
from pydantic import ConfigDict, Field

from pyrseg_jax.data.resample import resize_image
from pyrseg_jax.errors import UserError, reason_of
from pyrseg_jax.report.examples import data_uri, to_webp
from pyrseg_jax.report.markup import Cell, count, number, paragraph, percent, section, table, text, words
from pyrseg_jax.storage import documents
from pyrseg_jax.storage.paths import is_there

log = logging.getLogger(__name__)

RANKING, PICTURE = "ranking.json", "ranking.png"
MOST_REGIONS = 60
WIDEST_PX = 1600  # of the picture of a ranking

_Number = Annotated[float, Field(allow_inf_nan=False)]


class _Loose(documents.Document):
    model_config = ConfigDict(frozen=True, extra="allow")


class StoredRegion(_Loose):
    """A region whose label looks wrong, in `ranking.json`."""

    label: str
    predicted: str
    score: _Number
    num_pixels: int
    confidence: _Number
    box: dict[Literal["left", "top", "width", "height"], int]


class StoredImage(_Loose):
    """An image in `ranking.json`."""

    name: str
    score: _Number
    regions: list[StoredRegion]


class StoredRanking(_Loose):
    """The keys of `ranking.json` that the report reads."""

    kind: str
    split: str = ""
    step: int | None = None
    images: list[StoredImage]


class Ranking(NamedTuple):
    """A ranking of labels that look wrong.

    folder: where it is.
    content: its JSON.
    picture: its picture as a WebP file; b"" if there is none.
    """

    folder: str
    content: StoredRanking
    picture: bytes


def read_rankings(workdir: epath.Path) -> list[Ranking]:
    """Return the rankings of labels in the folders of a workdir; damaged ones are left out, and a warning names them."""
    try:
        paths = sorted(path / RANKING for path in workdir.iterdir() if path.is_dir() and is_there(path / RANKING))
    except OSError:
        return []
    found = []
    for path in paths:
        try:
            content = documents.read_json(path, StoredRanking)
        except UserError as error:
            log.warning("the report leaves out a ranking: %s", error)
            continue
        if content.kind == "labels":
            found.append(Ranking(path.parent.name, content, _read_picture(path.parent / PICTURE)))
    return found


def labels(rankings: list[Ranking]) -> str:
    """Lay out the regions whose labels look wrong, the worst first."""
    parts: list[str] = []
    for ranking in rankings:
        images = ranking.content.images
        regions = sorted(
            ((r.score, i, r) for i, image in enumerate(images) for r in image.regions), key=lambda x: -x[0]
        )
        about = f"{ranking.folder}: labels of {ranking.content.split or 'a split'} that look wrong, by `pyrseg rank`"
        about += "" if ranking.content.step is None else f" with step {ranking.content.step:,}"
        rows = [_region(rank, images[i].name, region) for rank, (_, i, region) in enumerate(regions[:MOST_REGIONS], 1)]
        headings = [
            "",
            "image",
            "labeled",
            "predicted",
            "score",
            "confidence, %",
            "pixels",
            "place (left, top, width × height)",
        ]
        listing = table(
            f"Regions, the worst {len(rows)} of {len(regions):,}", headings, rows, is_sortable=True, kind="numbers"
        )
        parts += [paragraph(about + "."), listing if rows else paragraph("No label looks wrong."), _picture(ranking)]
    return section("labels", "Labels that look wrong", *parts)


def _region(rank: int, name: str, region: StoredRegion) -> list[Cell]:
    box: Any = region.box
    place = f"{box.get('left')}, {box.get('top')}, {box.get('width')} × {box.get('height')}"
    return [
        Cell(str(rank), rank),
        *(words(part) for part in (name, region.label, region.predicted)),
        number(region.score),
        percent(region.confidence),
        count(region.num_pixels),
        Cell(text(place)),
    ]


def _picture(ranking: Ranking) -> str:
    if not ranking.picture:
        return ""
    alternative = (
        "The regions that look most wrong: photograph, label map and prediction of each, in the order of the table"
    )
    return f'<figure class="sheet"><img src="{data_uri(ranking.picture)}" alt="{alternative}"></figure>'


def _read_picture(path: epath.Path) -> bytes:
    if not is_there(path):
        return b""
    try:
        with Image.open(Path(path)) as image:
            pixels = np.asarray(image.convert("RGB"))
    except Exception as error:  # the file may be anything; the table is complete without it
        log.warning("the report leaves out %s (%s)", path, reason_of(error))
        return b""
    height, width = pixels.shape[:2]
    scale = min(1.0, WIDEST_PX / width)
    return to_webp(resize_image(pixels, (max(1, round(height * scale)), max(1, round(width * scale)))))
