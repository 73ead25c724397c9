"""Schemas of the JSON files that a prepared data set consists of, beside its images."""

from typing import Annotated

from pydantic import ConfigDict, Field, RootModel, model_validator

from pyrseg_jax.data.contents import num_digits
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
    # Sets that earlier versions prepared lack the rest.
    num_constant: Count = 0
    num_unlabeled: Count = 0
    turned: list[Count] = []
    digests: list[tuple[Count, str, str]] = []  # index in the split, of the image file, of the label file
    contents: list[
        tuple[Count, Annotated[str, Field(pattern=r"^[0-9a-f]*$")]]
    ] = []  # index in the split, see `contents.py`

    @model_validator(mode="after")
    def _check_lengths(self) -> "StoredReport":
        per_class = {len(self.pixels), len(self.images), len(self.cell_pixels), *map(len, self.unit_pixels)}
        per_level = {len(self.strides), len(self.cells), len(self.unit_pixels)}
        if len(per_class) > 1 or len(per_level) > 1:
            raise ValueError("expected lists with one item per class or per level, found lists of different lengths")
        if {len(text) for _, text in self.contents} - {num_digits(len(self.pixels))}:
            raise ValueError(f"expected texts of {num_digits(len(self.pixels))} digits in contents")
        return self


class StoredReports(RootModel[dict[str, StoredReport]]):
    """The report of each split."""


class ShardResult(Document):
    """Results of writing one shard."""

    report: StoredReport
    checksums: list[tuple[str, str, str]]  # name of a pair, and `report.checksums_of` for it


class Origin(Document):
    """The origin of a prepared data set. Only the keys that the package reads are checked."""

    model_config = ConfigDict(frozen=True, extra="allow")

    is_whole: bool
    rules: Count = 1  # the version of `rules.RULES`; earlier versions did not write it
    outward_key: str = ""  # see `FileDataset.outward_key`


class Check(Document):
    """What is remembered of a split whose files were read: its report, whose problems have no texts, and its number of pairs.

    A text would name places that the files may have left. It is found again by reading the file again.
    """

    num_pairs: Count
    report: StoredReport

    @model_validator(mode="after")
    def _check_indices(self) -> "Check":
        report = self.report
        used = [index for index, *_ in (*report.problems, *report.digests)]
        num_images = sum(count for *_, count in report.sizes)
        # The lengths first: the file may claim any number of pairs, and a list of them would not fit into memory.
        is_complete = len(used) == self.num_pairs and sorted(used) == list(range(self.num_pairs))
        if not is_complete or num_images != len(report.digests):
            raise ValueError(f"expected one problem or digest for each of the {self.num_pairs} pairs")
        usable = [index for index, *_ in report.digests]
        if report.contents and sorted(index for index, _ in report.contents) != sorted(usable):
            raise ValueError("expected one item for each pair that can be used in contents")
        if not set(report.turned) <= set(usable):
            raise ValueError("expected indices of pairs that can be used in turned")
        return self
