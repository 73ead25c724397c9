"""Experiment trackers: MLflow, Weights & Biases, trackio. A training hands them its record, and none of them can stop or slow it.

The training appends events to a file, `tracking/events.jsonl` (`spool.py`). Each tracker has a process of its own that reads this
file and calls the tracker's library (`process.py`), so that a library that raises, blocks or dies takes nothing with it, and what
it missed is delivered later. `forwarding.py` starts the processes and warns about them.
"""

import importlib.util
import re
from collections.abc import Sequence
from typing import NamedTuple

from pyrseg_jax.errors import UserError


class Tracker(NamedTuple):
    """A tracker.

    meaning: a description in one line, for help texts.
    package: the name under which its library is imported.
    extra: the extra of this package that installs it.
    module: the module with its `Sink`, see `contract.py`.
    """

    meaning: str
    package: str
    extra: str
    module: str


_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", re.ASCII)
TRACKERS = {
    "mlflow": Tracker("MLflow", "mlflow", "mlflow", f"{__name__}.mlflow_sink"),
    "wandb": Tracker("Weights & Biases", "wandb", "wandb", f"{__name__}.wandb_sink"),
    "trackio": Tracker(
        "trackio, which stores its runs on this machine", "trackio", "trackio", f"{__name__}.trackio_sink"
    ),
}


def tracker_of(name: str) -> Tracker:
    """Return the tracker of a name. A name with a dot is that of a module of the user's own, which has a function `make_sink`."""
    return TRACKERS[name] if name in TRACKERS else Tracker("a tracker of your own", name, "", name)


def read_names(text: str | None) -> tuple[str, ...]:
    """Return the trackers that a text names, separated by commas: keys of `TRACKERS`, and modules, see `tracker_of`.

    Raises:
      UserError: naming the first that is none.
    """
    names = tuple(dict.fromkeys(name.strip() for name in (text or "").split(",") if name.strip()))
    for name in names:
        if name not in TRACKERS and not _MODULE.fullmatch(name):
            raise UserError(
                f"trackers={text}: {name} is not a tracker: expected some of {', '.join(TRACKERS)}, with commas, or a module of "
                "your own, such as my_package.my_tracker"
            )
    return names


def check_installed(names: Sequence[str]) -> None:
    """Raise UserError for the first tracker whose library is not installed."""
    for name in names:
        about = tracker_of(name)
        if _is_there(about.package):
            continue
        if not about.extra:
            raise UserError(f"trackers={','.join(names)}: there is no module {name}: check its name and PYTHONPATH")
        raise UserError(
            f"trackers={','.join(names)}: the package {about.package} is not installed: run `pip install {about.package}` or "
            f"install the extra `{about.extra}` (`pip install 'pyrseg-jax[{about.extra}]'`), or leave out {name}"
        )


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:  # a package around it is missing
        return False
