"""The interface of every data set: undecoded records, by index."""

from typing import NotRequired, Protocol, TypedDict, runtime_checkable

from pyrseg_jax.data.image_space import ImageSpace


class Record(TypedDict):
    """One image with its label map, as stored in the files.

    image, label: the bytes of the files.
    image_name, label_name: names of the files, for messages.
    name: the name of the pair; the names of results are derived from it.
    image_space: what the values of the image mean; photographs need not say it.
    """

    image: bytes
    label: bytes
    image_name: str
    label_name: str
    name: str
    image_space: NotRequired[ImageSpace]


@runtime_checkable
class Source(Protocol):
    """A split of a data set: random access, and picklable, so that worker processes can read it."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Record: ...


@runtime_checkable
class FileSource(Source, Protocol):
    """A source that reads the user's files, which may be bad and may change.

    Attributes:
      remarks: lines about files in its folders that it does not contain.
    """

    remarks: tuple[str, ...]

    def fingerprint(self) -> list[str]:
        """Describe the files of each record in one line that changes whenever a file does."""
        ...

    def location(self) -> str:
        """Describe where the files are, in a text that changes when they are moved."""
        ...

    def place_of(self, index: int) -> str:
        """Return the path of a record's image, for messages, without reading it."""
        ...
