"""`pyrseg configs`: list the packaged configs, and the words that change each."""

import textwrap
from collections.abc import Mapping

from pyrseg_jax.run import config_file
from pyrseg_jax.run.config_file import Words

WIDTH = 100  # columns


def show() -> None:
    """Print every packaged config with its summary, then the groups of words, each once with a description of every word."""
    configs = {name: config_file.describe(path) for name, path in config_file.packaged().items()}
    width = max((len(word) for about in configs.values() for group in about.groups for word in group), default=0)
    shared: dict[str, tuple[Words, list[str]]] = {}  # title → the group, and the configs that know it
    lines = []
    for name, about in configs.items():
        lines += textwrap.wrap(f"{name}: {about.summary}", WIDTH, subsequent_indent="  ")
        titled = [group for group in about.groups if isinstance(group, Words)]
        for group in titled:
            shared.setdefault(group.title, (group, []))[1].append(name)
        lines += [line for group in about.groups if group not in titled for line in _list(group, width)]
        if titled:
            lines += [f"  words from the lists below: {', '.join(group.title.partition(',')[0] for group in titled)}"]
        lines += [""]
    for title, (group, names) in shared.items():
        name, comma, more = title.partition(",")
        heading = f"{name[0].upper()}{name[1:]}, for {', '.join(names)}{comma and ';'}{more}:"
        lines += [*textwrap.wrap(heading, WIDTH), *_list(group, width), ""]
    lines += [
        "Join words with commas; use at most one from each group: --config=camvid:cpu,F",
        "Your own config is a Python file like these (see configs/): --config=FILE.py",
    ]
    print("\n".join(lines))


def _list(group: Mapping[str, str], width: int) -> list[str]:
    """Return the lines of a group: each word, and its description beside it."""
    lines = []
    for word, text in group.items():
        first = f"  :{word:<{width}}  "
        lines += textwrap.wrap(
            text, WIDTH, initial_indent=first, subsequent_indent=" " * len(first), break_on_hyphens=False
        )
    return lines
