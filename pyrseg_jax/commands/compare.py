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
from pyrseg_jax.run.output_folder import check_output_folder, write_output_folder

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
    folder = (
        None
        if output is None
        else check_output_folder(output, (f"{NAME}{suffix}" for suffix in SUFFIXES), overwrite, NAME)
    )
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
    write_output_folder(folder, {f"{NAME}{suffix}": content for suffix, content in contents.items()})
    log.info("the comparison is in %s", folder / f"{NAME}.md")
