"""Write the reference of all configuration keys from the schema: `python -m pyrseg_jax.run.reference`."""

import inspect
import json
from pathlib import Path
from typing import Any

import pydantic

from pyrseg_jax.run.keys import Key, choices_of, is_group, keys_of
from pyrseg_jax.run.schema import Config

FOLDER = Path(__file__).parents[2] / "docs" / "reference"
INTRODUCTION = """# Configuration keys

<!-- Written by `python -m pyrseg_jax.run.reference` from pyrseg_jax/run/schema/: change it there. -->

A config file sets keys in Python (`config.training.steps = 660`), a command line as `--config.training.steps=660`, and
`pyrseg help training.steps` explains one. To set a key to None, write `--config.KEY=None`; write lists as `32,16,8,4` and
booleans as `true` or `false`.

A **resumable** key may change between parts of a run, because it is not meant to change what is learned. All other keys cannot
be changed when a run resumes: a command that gives one of them another value is refused.

**Durations** are numbers of steps, or text such as `"120 epochs"` or `"0.5 epochs"`. One epoch is the number of training images
divided by the batch size; the number of steps is rounded up. The `config.json` of a run keeps both: the steps as the value of
the key, and the text under `said`.

Editors can use [config.schema.json](config.schema.json) to complete and check the `config.json` of a run.
"""


def documents() -> dict[Path, str]:
    """Return the text of every document by its path."""
    return {FOLDER / "config.md": markdown(), FOLDER / "config.schema.json": json_schema()}


def markdown() -> str:
    """Write a table and the lists of choices for each group of keys."""
    sections = [INTRODUCTION]
    fields: dict[str, Any] = Config.__pydantic_fields__  # pyright: ignore[reportAttributeAccessIssue]  # an attribute of pydantic's dataclasses
    every = keys_of(Config)
    sections.append(_section("The whole run", "", [every[name] for name in fields if name in every]))
    for name, field in fields.items():
        if is_group(field.annotation):
            chosen = [key for key in every.values() if key.name.startswith(f"{name}.")]
            sections.append(_section(f"`{name}`", inspect.getdoc(field.annotation) or "", chosen))
    return "\n".join(sections)


def _section(title: str, text: str, keys: list[Key]) -> str:
    lines = [f"## {title}", "", *([text, ""] if text else [])]
    lines += ["| key | default | values | meaning | resumable | since |", "|---|---|---|---|---|---|"]
    for key in keys:
        values = key.describe_values() + (f" ({key.unit})" if key.unit and not key.is_duration else "")
        cells = (
            f"`{key.name}`",
            f"`{key.default!r}`",
            values,
            key.description,
            "yes" if key.is_resumable else "no",
            key.since,
        )
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    for key in keys:
        if choices := choices_of(key):
            lines += ["", f"Choices of `{key.name}`:", ""]
            lines += [f"- `{name}`: {meaning}" if meaning else f"- `{name}`" for name, meaning in choices.items()]
    return "\n".join(lines) + "\n"


def json_schema() -> str:
    """Write the JSON Schema of a run's config.json."""
    schema = pydantic.TypeAdapter(Config).json_schema()
    about = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "pyrseg_jax: the config.json of a run"}
    return json.dumps({**schema, **about}, indent=1) + "\n"


def main() -> None:
    """Write all documents."""
    for path, text in documents().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main()
