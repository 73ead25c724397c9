"""What the plots drawn with Matplotlib have in common: settings, axes, and the names of classes beside them."""

import io
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from pyrseg_jax.reporting.sheet import installed_families, is_drawable

# Distinguishable with any color vision (the palette of Okabe and Ito).
COLORS = ("#0072B2", "#56B4E9", "#E69F00", "#D55E00", "#CC79A7", "#009E73")
LONGEST_NAME = 32  # characters of a name that an axis shows
SUFFIXES = (".pdf", ".png")


def render(draw: Callable[[], Any]) -> dict[str, bytes]:
    """Draw a figure, and return it as PDF and PNG, by suffix.

    The settings are ours, whatever the user's settings of Matplotlib are: every text means itself.
    """
    import matplotlib

    settings: dict[Any, Any] = {"text.parse_math": False, "text.usetex": False, "font.family": installed_families()}
    contents = {}
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # very many or long names may leave no room for the axes
        figure = draw()
        for suffix in SUFFIXES:
            data = io.BytesIO()
            figure.savefig(data, format=suffix.removeprefix("."), dpi=160)
            contents[suffix] = data.getvalue()
    return contents


def empty_figure(width: float, height: float):
    """Make an empty figure of this size in inches."""
    from matplotlib.figure import Figure  # takes a second to import

    return Figure(figsize=(width, height), layout="constrained")


def tidy(axes: Any, grid: str) -> None:
    """Remove the upper and right spines, and draw the grid of one axis behind the data."""
    axes.grid(axis=grid, color="0.88")
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def shown_names(names: Sequence[str], instead: str = "class", longest: int = LONGEST_NAME) -> list[str]:
    """Return names as a plot shows them: in one line, cut where they are long; `class 3` for one that no font can draw."""
    shown = [" ".join(name.split()) if is_drawable(name) else f"{instead} {i}" for i, name in enumerate(names)]
    return [name if len(name) <= longest else name[: longest - 1] + "…" for name in shown]


def name_ticks(axis: Any, names: Sequence[str], **style: Any) -> None:
    """Write names along an axis. No name is read as a formula, whatever characters it holds."""
    axis.set_ticks(range(len(names)), names, **style)
    for label in axis.get_ticklabels():
        label.set_parse_math(False)
