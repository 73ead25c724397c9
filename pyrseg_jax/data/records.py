"""Schemas of the JSON files that a prepared data set consists of, beside its images."""

from pydantic import ConfigDict, RootModel

from pyrseg_jax.storage.documents import Document


class StoredReport(Document):
    """A `DatasetReport` as `DatasetReport.to_json` returns it."""

    strides: list[int]
    pixels: list[int]
    images: list[int]
    num_void: int
    cells: list[list[int]]
    unit_pixels: list[list[int]]
    cell_pixels: list[int]
    sizes: list[tuple[int, int, int]]  # height, width, number of images
    problems: list[tuple[int, str]]  # index in the split, message


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
