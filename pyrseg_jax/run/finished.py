"""The file `finished` of a run that has come to its end: at which step, and why."""

import json

from pyrseg_jax.errors import UserError
from pyrseg_jax.run.workdir import Workdir
from pyrseg_jax.storage.atomic import write_atomically
from pyrseg_jax.storage.paths import is_there

FINISHED = "finished"


def write_finished(workdir: Workdir, step: int, reason: str) -> None:
    """Write the file of a finished run.

    Args:
      workdir: the run's folder.
      step: the last step.
      reason: why the run ended there.

    Raises:
      UserError: if the file cannot be written.
    """
    path = workdir.path / FINISHED
    try:
        write_atomically(path, json.dumps({"step": step, "reason": reason}) + "\n")
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror or error}): make room or restore access, then start the same command again"
        ) from error


def remove_finished(workdir: Workdir) -> None:
    """Remove the file, because the run goes on."""
    path = workdir.path / FINISHED
    if is_there(path) and not path.is_dir():
        path.unlink()
