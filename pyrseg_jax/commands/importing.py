"""`pyrseg import --input=SOURCE --output=FOLDER`: turn the export of a label tool into a data set in the folder layout."""

import shlex
from pathlib import Path

from pyrseg_jax.errors import UserError, escaped
from pyrseg_jax.importing.annotations import Annotations, Options
from pyrseg_jax.importing.class_list import read_class_list
from pyrseg_jax.importing.formats import Format
from pyrseg_jax.importing.importer import Plan, import_dataset
from pyrseg_jax.importing.summary import summary_text

MAX_NAMED = 20  # classes that the first lines name; the table at the end has all of them


def import_source(
    source: str,
    output: str,
    format_name: str | None = None,
    classes: str | None = None,
    share: float | None = None,
    group: str | None = None,
    seed: int = 0,
    unlabeled: str | None = None,
    overlap: str | None = None,
    is_skipping: bool = False,
    is_copying: bool = False,
    is_replacing: bool = False,
) -> dict:
    """Import a source, and print what was recognized, written, and left out.

    Args:
      source: the folder, zip or file that was exported.
      output: the folder to write.
      format_name: the format; None recognizes it.
      classes: file of a list of classes, or None.
      share, group, seed, is_skipping, is_copying, is_replacing: see `importer.Plan`.
      unlabeled, overlap: see `annotations.Options`.

    Returns:
      The summary, as in `import.json`.

    Raises:
      UserError: as `importer.import_dataset` does.
    """
    if group is not None and not group:
        raise UserError("--group is empty: give a pattern such as '^([^_]+)_', or leave the flag out")
    folder = Path(output).expanduser()
    options = Options(
        classes=None if classes is None else read_class_list(Path(classes).expanduser()),
        unlabeled=unlabeled,
        overlap=overlap,
        proposal=folder.with_name(f"{folder.name}_classes.csv"),
    )
    plan = Plan(share, group, seed, is_skipping, is_copying, is_replacing)
    summary = import_dataset(source, output, format_name, options, plan, _print_start)
    print(escaped_lines(summary_text(summary)))
    print(f"next: {next_command(summary, output)}", flush=True)
    return summary


def next_command(summary: dict, output: str) -> str:
    """Return the command that trains on an imported data set, given its folder; the config reads this layout."""
    flags = [f"--config.data.root={shlex.quote(output)}"]
    flags += [] if "validation" in summary["images"] else ["--config.evaluation.split=training"]
    return " ".join(["pyrseg train --config=camvid:cpu", *flags, "--workdir=runs/mine"])


def escaped_lines(text: str) -> str:
    """Escape each line of a text, whose names come from files."""
    return "\n".join(escaped(line) for line in text.split("\n"))


def _print_start(chosen: Format, evidence: str, annotations: Annotations) -> None:
    names = annotations.classes
    listed = ", ".join(names[:MAX_NAMED]) + (", …" if len(names) > MAX_NAMED else "")
    print(escaped(f"format: {chosen.name}, {chosen.meaning} ({evidence})"))
    print(escaped(f"found: {len(annotations.pictures):,} pictures, {len(names)} classes: {listed}"), flush=True)
