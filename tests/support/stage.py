"""Scripts on a stage: the programs that they call are stand-ins, which note how they were called."""

import functools
import os
import signal
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAM = "pyrseg_jax.main"


class Stage:
    """A folder of programs that stand in for others; each notes how it was called."""

    def __init__(self, folder: Path):
        self.folder, self.programs = folder, folder / "programs"
        self.programs.mkdir()
        self.env = os.environ | {"PATH": f"{self.programs}:{os.environ['PATH']}", "STAGE": str(folder)}

    def add(self, name: str, text: str) -> None:
        program = self.programs / name
        program.write_text(f'#!/usr/bin/env bash\necho "{name} $*" >> "$STAGE/calls"\n{text}\n')
        program.chmod(0o755)

    def calls(self, beginning: str = "") -> list[str]:
        noted = self.folder / "calls"
        lines = noted.read_text().splitlines() if noted.exists() else []
        return [line for line in lines if line.startswith(beginning)]

    def start(self, *command, **variables) -> subprocess.Popen:
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        # Where the tests themselves run in the background, the shell has made them ignore Ctrl-C, and a script would, too.
        streams["preexec_fn"] = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        return subprocess.Popen(["bash", *map(str, command)], cwd=ROOT, env=self.env | variables, **streams)

    def run(self, *command, **variables) -> subprocess.CompletedProcess:
        process = self.start(*command, **variables)
        try:
            stdout, stderr = process.communicate(timeout=120)
        finally:
            process.terminate()
        return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


def wait_for(condition, what: str) -> None:
    for _ in range(300):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError(f"no {what} after 30 s")
