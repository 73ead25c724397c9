"""What every data set hands out: undecoded records, by index."""

from typing import Protocol, TypedDict, runtime_checkable


class Record(TypedDict):
    """One image with its label map, as they lie in the files.

    image, label: the bytes of the files.
    image_name, label_name: what to call them in messages.
    name: what to call files about the pair.
    """

    image: bytes
    label: bytes
    image_name: str
    label_name: str
    name: str


@runtime_checkable
class Source(Protocol):
    """A split of a data set: random access, picklable, so that worker processes can read it."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Record: ...
