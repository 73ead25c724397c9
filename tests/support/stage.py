"""A stage for shell scripts: stand-ins replace the programs that a script calls, and record how it called them."""

import functools
import os
import signal
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAM = "pyrseg_jax.main"


class Stage:
    """A folder of stand-ins that comes first on PATH; each records its calls.

    Attributes:
      folder: where the stand-ins may leave files; they know it as $STAGE.
      programs: the folder with the stand-ins.
      env: the environment in which scripts run.
    """

    def __init__(self, folder: Path):
        self.folder, self.programs = folder, folder / "programs"
        self.programs.mkdir()
        self.env = os.environ | {"PATH": f"{self.programs}:{os.environ['PATH']}", "STAGE": str(folder)}

    def add(self, name: str, text: str) -> None:
        """Add a stand-in that runs this shell text."""
        program = self.programs / name
        program.write_text(f'#!/usr/bin/env bash\necho "{name} $*" >> "$STAGE/calls"\n{text}\n')
        program.chmod(0o755)

    def calls(self, beginning: str = "") -> list[str]:
        """Return the recorded command lines that start with `beginning`."""
        record = self.folder / "calls"
        lines = record.read_text().splitlines() if record.exists() else []
        return [line for line in lines if line.startswith(beginning)]

    def start(self, *command, **variables) -> subprocess.Popen:
        """Start a script, with additional environment variables."""
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        # If the tests run in the background, the shell has made them ignore Ctrl-C, and a script would inherit that.
        streams["preexec_fn"] = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        return subprocess.Popen(["bash", *map(str, command)], cwd=ROOT, env=self.env | variables, **streams)

    def run(self, *command, **variables) -> subprocess.CompletedProcess:
        """Run a script to its end, two minutes at most."""
        process = self.start(*command, **variables)
        try:
            stdout, stderr = process.communicate(timeout=120)
        finally:
            process.terminate()
        return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


def wait_for(condition, what: str) -> None:
    """Wait until the condition holds; fail after 30 s, naming what was missing."""
    for _ in range(300):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError(f"no {what} after 30 s")
