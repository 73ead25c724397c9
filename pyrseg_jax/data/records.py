"""Schemas of the JSON files that a prepared data set consists of, beside its images."""

from typing import Annotated

from pydantic import ConfigDict, Field, RootModel, model_validator

from pyrseg_jax.storage.documents import Document

Count = Annotated[int, Field(ge=0, lt=2**63)]  # what an array of 64 bits holds


class StoredReport(Document):
    """A `DatasetReport` as `DatasetReport.to_json` returns it."""

    strides: list[Count]
    pixels: list[Count]
    images: list[Count]
    num_void: Count
    cells: list[tuple[Count, Count]]
    unit_pixels: list[list[Count]]
    cell_pixels: list[Count]
    sizes: list[tuple[Count, Count, Count]]  # height, width, number of images
    problems: list[tuple[Count, str]]  # index in the split, message

    @model_validator(mode="after")
    def _check_lengths(self) -> "StoredReport":
        per_class = {len(self.pixels), len(self.images), len(self.cell_pixels), *map(len, self.unit_pixels)}
        per_level = {len(self.strides), len(self.cells), len(self.unit_pixels)}
        if len(per_class) > 1 or len(per_level) > 1:
            raise ValueError("expected lists with one item per class or per level, found lists of different lengths")
        return self


class StoredReports(RootModel[dict[str, StoredReport]]):
    """The report of each split."""


class ShardResult(Document):
    """Results of writing one shard."""

    report: StoredReport
    checksums: list[tuple[str, str, str]]  # name of a pair, and `report.checksums_of` for it


class Origin(Document):
    """The origin of a prepared data set. Only the key that the package reads is checked."""

    model_config = ConfigDict(frozen=True, extra="allow")

    is_whole: bool


class Problems(RootModel[list[tuple[int, str]]]):
    """(index in the split, message) of each pair that cannot be used."""
