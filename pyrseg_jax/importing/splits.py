"""Divide pictures among splits: by the source's own lists, or drawn by a seed, whole groups at a time."""

import hashlib
import re
from collections.abc import Sequence

from pyrseg_jax.errors import UserError

TRAINING, VALIDATION, TEST = "training", "validation", "test"
DEFAULT_SHARE = 0.2  # of the pictures, for validation
_WORDS = {
    TRAINING: ("train", "training", "trainset", "trainval"),
    VALIDATION: ("val", "valid", "validation", "valset", "dev", "eval"),
    TEST: ("test", "testing", "testset"),
}


def split_of_word(word: str) -> str | None:
    """Return the split that a name stands for, such as `train`, `val2017` or `Validation`; None if it is not a split."""
    plain = re.sub(r"[\W_]*\d{0,4}$", "", word.strip().lower())
    return next((split for split, words in _WORDS.items() if plain in words), None)


def split_of_path(path: str) -> str | None:
    """Return the split that a path names in one of its folders or in a part of its file name; the last one counts."""
    parts = re.split(r"[/._\s-]+", path)
    return next((split for part in reversed(parts) if (split := split_of_word(part))), None)


def draw_splits(
    names: Sequence[str], given: Sequence[str | None], share: float | None, group: str | None, seed: int
) -> tuple[list[str], str]:
    """Return the split of each picture, and a line that says where the splits come from.

    Args:
      names: the pictures.
      given: the split of each that the source gives, or None.
      share: share of the pictures for validation, drawn anew even where the source gives splits; test pictures stay test pictures.
        None keeps the splits of the source, or draws a fifth if it has no validation split.
      group: pattern whose first group (or whole match) in a picture's name names the group of the picture. A group is never
        divided.
      seed: seed of the draw. The same pictures and seed give the same splits.

    A single picture is for training.

    Raises:
      UserError: if the pattern is wrong, does not match a name, or puts all pictures into one group.
    """
    if share is None and VALIDATION in given and TRAINING in given:
        splits = [split or TRAINING for split in given]
        left = sum(split is None for split in given)
        more = f"; {left} pictures without a split are in training" if left else ""
        return splits, f"as the source lists them{more}"
    drawn = [i for i, split in enumerate(given) if split != TEST]
    if not drawn:
        raise UserError("the source has test pictures only: there is nothing to learn from")
    groups = _groups(names, group)
    chosen = _draw([groups[i] for i in drawn], DEFAULT_SHARE if share is None else share, seed, group is not None)
    splits = [TEST] * len(given)
    for i in drawn:
        splits[i] = VALIDATION if groups[i] in chosen else TRAINING
    kinds = len({groups[i] for i in drawn})
    if not chosen:
        return splits, "there is only one picture, so none is for validation"
    by = f"by groups ({kinds} of them, pattern {group!r})" if group is not None else "by pictures"
    count = splits.count(VALIDATION)
    why = "" if share is not None or not any(given) else ", because the source has no validation split"
    return splits, f"drawn with seed {seed}, {by}: {count} of {len(drawn)} pictures are for validation{why}"


def _groups(names: Sequence[str], pattern: str | None) -> list[str]:
    if pattern is None:
        return list(names)
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UserError(
            f"--group={pattern} is not a regular expression ({error}): write one like '^([^_]+)_'"
        ) from error
    found = [compiled.search(name) for name in names]
    missing = [name for name, match in zip(names, found, strict=True) if match is None]
    if missing:
        raise UserError(
            f"--group={pattern} matches no part of {missing[0]!r} ({len(missing)} of {len(names)} pictures): choose a pattern that "
            "matches the name of each picture"
        )
    return [match[1] or "" if compiled.groups else match[0] for match in found if match is not None]


def _draw(groups: Sequence[str], share: float, seed: int, is_grouped: bool) -> set[str]:
    """Return the groups for validation. They are taken in the order of a hash until they hold the wanted share of the pictures."""
    sizes: dict[str, int] = {}
    for name in groups:
        sizes[name] = sizes.get(name, 0) + 1
    if len(groups) == 1 or (len(sizes) < 2 and not is_grouped):
        return set()
    if len(sizes) < 2:
        raise UserError(
            f"--group puts all {len(groups)} pictures into one group ({next(iter(sizes))!r}), and groups are never divided: choose "
            "a pattern that tells groups apart"
        )
    order = sorted(sizes, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode(errors="surrogateescape")).digest())
    chosen, count = set(), 0
    for name in order[:-1]:  # at least one group stays for training
        if chosen and count + sizes[name] / 2 > share * len(groups):
            break
        chosen.add(name)
        count += sizes[name]
    return chosen
