"""`pyrseg compare RUN RUN…`: compare the evaluations of runs as a table and a plot, with intervals over images."""

import contextlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path

from pyrseg_jax.errors import UserError, reason_of
from pyrseg_jax.reporting.comparison_figure import comparison_figure
from pyrseg_jax.reporting.comparison_table import comparison_markdown, comparison_table
from pyrseg_jax.reporting.plots import render
from pyrseg_jax.run.compared_experiments import join, label_all
from pyrseg_jax.run.compared_runs import NEWEST, read_argument, read_run
from pyrseg_jax.run.comparison import compare_experiments
from pyrseg_jax.storage.atomic import remove_leftovers, write_bytes_atomically
from pyrseg_jax.storage.paths import is_remote
from pyrseg_jax.storage.regular_file import obstacle

log = logging.getLogger(__name__)

NAME = "comparison"
SUFFIXES = (".md", ".json", ".png", ".pdf")


def compare(runs: Sequence[str], which: str | None = None, output: str | None = None, overwrite: bool = False) -> dict:
    """Print the table of a comparison, and write it with a plot if there is an output folder; return the comparison.

    Args:
      runs: one text for each experiment, see `compared_runs.read_argument`.
      which: the result of each run, see `compared_runs.read_run`; by default the newest.
      output: the folder for `comparison.md`, `.json`, `.png` and `.pdf`; None prints the table only.
      overwrite: whether files of these names may be replaced.

    Raises:
      UserError: if a run is not found or its files are damaged, the runs were not evaluated on the same images and classes, or a
        file would be replaced or cannot be written.
    """
    if not runs:
        raise UserError(
            "compare needs runs: give their folders, such as `pyrseg compare runs/a runs/b`; `pyrseg help compare` says more"
        )
    folder = None if output is None else _check_output(output, overwrite)
    arguments = [read_argument(text) for text in runs]
    found = [[read_run(path, which or NEWEST) for path in argument.paths] for argument in arguments]
    labels = label_all(arguments, found)
    comparison = compare_experiments([join(label, group) for label, group in zip(labels, found, strict=True)])
    try:
        print(comparison_table(comparison), flush=True)
    finally:  # a closed pipe costs the table, not the files
        if folder is not None:
            _write(folder, comparison)
    return comparison


def _check_output(output: str, overwrite: bool) -> Path:
    """Return the output folder; raise UserError if a file there would be replaced without permission."""
    if is_remote(output):
        raise UserError(f"--output={output} is in remote storage: name a folder on a local disk")
    folder = Path(output).expanduser()
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--output={output} is not a folder: name another")
    for suffix in SUFFIXES:
        path = folder / f"{NAME}{suffix}"
        found = obstacle(path) if folder.is_dir() else None
        if found:
            raise UserError(f"{path} is {found}, which is not replaced: name another folder with --output")
        if path.exists() and not overwrite:
            raise UserError(
                f"{path} exists: name another folder with --output, or give --overwrite to replace the comparison there"
            )
    return folder


def _write(folder: Path, comparison: dict) -> None:
    """Write the tables and the plot. A plot that cannot be drawn costs only the plot."""
    contents = {
        ".md": comparison_markdown(comparison).encode(),
        ".json": (json.dumps(comparison, indent=1) + "\n").encode(),
    }
    try:
        contents |= render(lambda: comparison_figure(comparison))
    except Exception as error:  # Matplotlib raises errors of any type
        log.warning("the plot could not be drawn (%s): the tables are complete without it", reason_of(error))
        for suffix in (".png", ".pdf"):  # an older plot would show another comparison
            with contextlib.suppress(OSError):
                (folder / f"{NAME}{suffix}").unlink()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        for suffix, content in contents.items():
            write_bytes_atomically(folder / f"{NAME}{suffix}", content)
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written ({error.strerror or error}): make room, or name another folder with --output"
        ) from error
    log.info("the comparison is in %s", folder / f"{NAME}.md")
