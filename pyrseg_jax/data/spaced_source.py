"""Give the records of a source an image space: what the values in their image files mean."""

from pyrseg_jax.data.image_space import ImageSpace
from pyrseg_jax.data.source import FileSource, Record, Source


class SpacedSource:
    """The records of a source, whose images are of a given `ImageSpace`."""

    def __init__(self, source: Source, space: ImageSpace):
        self._source, self._space = source, space

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Record:
        record = self._source[index].copy()
        record["image_space"] = self._space
        return record

    def __repr__(self) -> str:  # Grain puts this into its messages
        return repr(self._source)


class SpacedFileSource(SpacedSource):
    """The same for a source that reads the user's files."""

    def __init__(self, source: FileSource, space: ImageSpace):
        super().__init__(source, space)
        self._file_source = source
        self.remarks = source.remarks

    def fingerprint(self) -> list[str]:
        """Describe the files of each record in one line that changes whenever a file or the image space does."""
        return [f"{line}; {self._space!r}" for line in self._file_source.fingerprint()]

    def location(self) -> str:
        """Describe where the files are, in a text that changes when they are moved."""
        return self._file_source.location()

    def place_of(self, index: int) -> str:
        """Return the path of a record's image, for messages, without reading it."""
        return self._file_source.place_of(index)


def images_as(source: Source, space: ImageSpace) -> Source:
    """Return the source with images of this space; photographs, the usual ones, stay as they are."""
    if space.is_photograph:
        return source
    return SpacedFileSource(source, space) if isinstance(source, FileSource) else SpacedSource(source, space)
