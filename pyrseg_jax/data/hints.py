"""Point out what is not an error in a data set but looks like a mistake."""

import collections
import re
from collections.abc import Sequence

import numpy as np

from pyrseg_jax.conventions import void_of
from pyrseg_jax.data.decode import decode_label_values
from pyrseg_jax.data.label_space import LabelSpace
from pyrseg_jax.data.loading import place_of
from pyrseg_jax.data.report import DatasetReport
from pyrseg_jax.data.source import FileSource, Source
from pyrseg_jax.errors import UserError

NAMES_IN_A_HINT = 8
LARGE_VOID_SHARE = 0.05  # of all pixels; borders between objects usually take less
MANY = 0.1  # share of the pairs; below it, void or repeated pictures are usual
MAX_LABELS_READ = 20  # to list the values of a split that is void everywhere
_NUMBERED = re.compile(r"([0-9]{1,3})[ :;,.)_-]+[^\d\s]")  # "0 sky", "1: road", "2. post"


def split_hints(found: DatasetReport, label_space: LabelSpace, source: Source) -> list[str]:
    """List the hints on one split, given its report: on files that are not in it, on its labels, and on its files."""
    remarks = source.remarks if isinstance(source, FileSource) else ()
    return [*remarks, *_about_names(label_space), *hints(found, label_space), *_about_files(found, source)]


def hints(found: DatasetReport, label_space: LabelSpace) -> list[str]:
    """List the hints on the labels: absent classes, nothing labeled, and labels that seem to start at another number."""
    if not found.num_images:
        return []
    if not found.pixels.any():
        return [f"nothing is labeled: {_all(found.num_images, 'label map')} void everywhere"]
    lines = []
    absent = np.flatnonzero(found.pixels == 0)
    if len(absent):
        names = _name(label_space, absent)
        lines.append(f"{len(absent)} of {label_space.num_classes} classes have no pixels: {names}")
    void_share = found.num_void / max(int(found.pixels.sum()) + found.num_void, 1)
    first, last, void = label_space.file_ids[0], label_space.file_ids[-1], label_space.void_file_id
    if void == first - 1 and void_share > LARGE_VOID_SHARE and not found.pixels[-1]:
        lines.append(
            f"the labels look shifted: the last class {label_space.names[-1]!r} (value {last}) never occurs, and {void_share:.0%} "
            f"of all pixels have the value {void} (void); if your labels count from {void}, set first_value={void} and "
            f"void_value={void_of(label_space.dtype)}"
        )
    if not found.pixels[0] and found.pixels[-1] and label_space.num_classes > 1 and not found.num_void:
        lines.append(
            f"the labels look shifted: the first class {label_space.names[0]!r} (value {first}) never occurs, and no pixel is "
            f"void (value {void}); compare some label maps with classes.txt"
        )
    if found.num_unlabeled > MANY * found.num_images:
        lines.append(f"{found.num_unlabeled} of {found.num_images} label maps are void everywhere")
    elif found.num_constant > max(found.num_images / 2, 1) and label_space.num_classes > 1:
        lines.append(f"{found.num_constant} of {found.num_images} label maps hold a single value each")
    return lines


def hints_between(
    found: DatasetReport, source: Source, training: DatasetReport, training_source: Source, label_space: LabelSpace
) -> list[str]:
    """List the hints on a split that is evaluated, compared with the training split: unknown classes and known pictures."""
    lines = []
    unknown = np.flatnonzero((found.pixels > 0) & (training.pixels == 0))
    if len(unknown) and training.pixels.any():
        lines.append(
            f"{len(unknown)} of {label_space.num_classes} classes occur here but never in the training split, so they cannot be "
            f"learned: {_name(label_space, unknown)}"
        )
    places = {digest: index for index, digest, _ in reversed(training.digests)}
    same = [(index, places[digest]) for index, digest, _ in found.digests if digest in places]
    if same:
        here, there = place_of(source, same[0][0]), place_of(training_source, same[0][1])
        lines.append(
            f"{len(same)} of {found.num_images} images are also in the training split, for example {here}, which equals {there}: "
            "scores on pictures that were learned say little"
        )
    return lines


def lost_hints(lost: Sequence[int], label_space: LabelSpace) -> list[str]:
    """List the hint on classes that only held-out images show."""
    if not lost:
        return []
    return [
        f"{len(lost)} of {label_space.num_classes} classes are shown by held-out images alone, so they cannot be learned: "
        f"{_name(label_space, np.array(lost))}"
    ]


def _about_names(label_space: LabelSpace) -> list[str]:
    """List the hints on the names of the classes, which count by their lines: comments, and numbers that are not the values."""
    lines = [
        f"the class {name!r} (value {value}) begins with #: each line names a class, so a comment shifts all that follow"
        for name, value in zip(label_space.names, label_space.file_ids, strict=True)
        if name.startswith("#")
    ][:1]
    found = [_NUMBERED.match(name) for name in label_space.names]
    numbers = [int(match[1]) for match in found if match]
    wrong = [i for i, (number, value) in enumerate(zip(numbers, label_space.file_ids, strict=False)) if number != value]
    if wrong and len(numbers) == label_space.num_classes > 1:
        name, value = label_space.names[wrong[0]], label_space.file_ids[wrong[0]]
        lines.append(f"the names of the classes begin with numbers, but the class {name!r} has the value {value}")
    return lines


def need_labels(found: DatasetReport, label_space: LabelSpace, source: Source, what: str) -> None:
    """Raise UserError if no pixel of a split is labeled, because nothing could be learned from it."""
    if found.pixels.any() or not found.num_images:
        return
    values = ", ".join(map(str, _values_in(source)))
    raise UserError(
        f"{what}: nothing can be learned, because {_all(found.num_images, 'label map')} void everywhere: the values found are "
        f"{values}; expected {label_space.describe_file_ids()}; correct the label maps, or, in a folder of your own, say what "
        "the values mean with first_value=N, void_value=N, or remap=VALUE:CLASS"
    )


def _values_in(source: Source) -> list[int]:
    """Return the values in some label files, evenly spread over a split."""
    found: set[int] = set()
    for index in range(0, len(source), max(len(source) // MAX_LABELS_READ, 1)):
        record = source[index]
        values = decode_label_values(record["label"], record["label_name"], "whole numbers")
        found |= set(np.unique(values).tolist())
    return sorted(found)


def _about_files(found: DatasetReport, source: Source) -> list[str]:
    lines = []
    if found.turned:
        num_turned = len(found.turned)
        lines.append(
            f"{num_turned} photograph{'s were' if num_turned > 1 else ' was'} stored rotated or mirrored (EXIF orientation), for "
            f"example {place_of(source, found.turned[0])}, and the label map fits both ways: photographs are turned upright, so "
            "check that label maps are upright, too"
        )
    by_image = collections.defaultdict(list)
    for index, image, label in found.digests:
        by_image[image].append((index, label))
    repeated = [pairs for pairs in by_image.values() if len(pairs) > 1]
    differing = [pairs for pairs in repeated if len({label for _, label in pairs}) > 1]
    num_copies = len(found.digests) - len(by_image)
    if differing:
        lines.append(
            f"{len(differing)} image{'s occur' if len(differing) > 1 else ' occurs'} more than once with different label maps, "
            f"for example {_places(differing[0], source)}"
        )
    elif num_copies > MANY * len(found.digests):
        lines.append(
            f"{num_copies} of {len(found.digests)} images are copies of others, for example {_places(repeated[0], source)}"
        )
    labels = {label for *_, label in found.digests}
    if len(labels) == 1 and len(by_image) > 1:
        lines.append(f"all {len(found.digests)} label maps are equal, but the images differ")
    return lines


def _places(pairs: Sequence[tuple[int, str]], source: Source) -> str:
    return " and ".join(place_of(source, index) for index, _ in pairs[:2])


def _name(label_space: LabelSpace, train_ids: np.ndarray) -> str:
    names = ", ".join(label_space.names[i] for i in train_ids[:NAMES_IN_A_HINT])
    return names + (", …" if len(train_ids) > NAMES_IN_A_HINT else "")


def _all(count: int, noun: str) -> str:
    return f"the only {noun} is" if count == 1 else f"all {count} {noun}s are"
