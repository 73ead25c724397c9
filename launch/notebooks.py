"""Write docs/notebooks/*.ipynb from the *.py beside them, or check with --check that they are up to date.

The sources are in jupytext's percent format, so that jupytext and editors read them as notebooks, too. Notebooks without outputs
are written with the standard library alone, and are the same on every machine.
"""

import json
import re
import sys
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "docs" / "notebooks"
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def cells_of(text: str) -> list[tuple[str, str]]:
    """Return (kind, source) of each cell, "markdown" or "code"; what stands before the first cell is jupytext's header."""
    cells = []
    for part in re.split(r"^# %%", text, flags=re.MULTILINE)[1:]:
        marker, _, body = part.partition("\n")
        if "[markdown]" in marker:
            lines = [line.removeprefix("#").removeprefix(" ") for line in body.strip().splitlines()]
            cells.append(("markdown", "\n".join(lines)))
        else:
            cells.append(("code", body.strip("\n")))
    return cells


def notebook_of(text: str) -> str:
    """Return the notebook of a source as JSON."""
    cells = []
    for number, (kind, source) in enumerate(cells_of(text)):
        cell = {"cell_type": kind, "id": f"cell-{number}", "metadata": {}, "source": source.splitlines(keepends=True)}
        cells.append(cell if kind == "markdown" else cell | {"execution_count": None, "outputs": []})
    metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    notebook = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def main(arguments: list[str]) -> int:
    """Write the notebooks; with --check, write nothing and return 1 if one differs."""
    status = 0
    for source in sorted(FOLDER.glob("*.py")):
        target, text = source.with_suffix(".ipynb"), notebook_of(source.read_text(encoding="utf-8"))
        if target.is_file() and target.read_text(encoding="utf-8") == text:
            continue
        if "--check" in arguments:
            print(f"{target.name} does not match {source.name}: run `python launch/notebooks.py`", file=sys.stderr)
            status = 1
        else:
            target.write_text(text, encoding="utf-8")
            print(f"wrote {target.name}")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
