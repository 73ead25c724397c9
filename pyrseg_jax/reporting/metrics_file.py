"""Read `metrics.jsonl` of a run that is resumed: each step once, and none that will be trained again."""

import json
import logging
from pathlib import Path

from etils import epath

from pyrseg_jax.storage.paths import is_remote, is_there
from pyrseg_jax.storage.regular_file import read_regular_file

log = logging.getLogger(__name__)
MAX_BYTES = 4 * 2**30  # some ten million lines


def lines_until(path: epath.Path, last_step: int) -> bytes:
    """Read the lines of a metrics file up to a step; a later line replaces one of the same step.

    Damaged lines are left out, and a warning names them. A killed run leaves a truncated last line. Another warning counts the
    lines of later steps.
    """
    if not is_there(path):
        return b""
    content = path.read_bytes() if is_remote(path) else read_regular_file(Path(path), MAX_BYTES)
    kept, damaged, num_later = {}, [], 0
    for number, line in enumerate(content.splitlines(), 1):
        try:
            step = json.loads(line)["step"]
        except (ValueError, KeyError, TypeError, RecursionError):
            step = None
        if type(step) is not int:  # true is not a step
            damaged.append(str(number))
        elif step <= last_step:
            kept[step] = line + b"\n"
        else:
            num_later += 1
    if damaged:
        shown = ", ".join(damaged[:5]) + (", …" if len(damaged) > 5 else "")
        log.warning("%s: left out %d damaged lines (%s)", path, len(damaged), shown)
    if num_later:
        log.warning("%s: removed %d lines of steps after %d, which will be trained again", path, num_later, last_step)
    return b"".join(kept.values())
