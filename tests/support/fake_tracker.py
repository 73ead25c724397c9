"""A tracker that writes what it gets to the file that FAKE_TRACKER_LOG names, and misbehaves as FAKE_TRACKER says."""

import json
import os
import signal
import time
from pathlib import Path


def note(**values):
    with Path(os.environ["FAKE_TRACKER_LOG"]).open("a") as file:
        file.write(json.dumps(values) + "\n")


class FakeSink:
    def open(self, about, run):
        self.misbehave("open")
        note(kind="open", id=about.id, name=about.name, run=run, steps=about.config.get("training.steps"))
        return run or f"run of {about.id}"

    def write(self, values, step):
        self.misbehave("write")
        note(kind="write", values=dict(values), step=step)

    def draw(self, name, path, step):
        note(kind="draw", name=name, bytes=path.stat().st_size, step=step)

    def close(self, is_finished):
        note(kind="close", is_finished=is_finished)

    def misbehave(self, method):
        asked, _, where = os.environ.get("FAKE_TRACKER", "").partition(":")
        if where == method:
            if asked == "raise":
                raise ConnectionError("no route to the tracker\nand more lines")
            if asked == "hang":
                time.sleep(1000)
            if asked == "die":
                os.kill(os.getpid(), signal.SIGKILL)


def make_sink():
    if os.environ.get("FAKE_TRACKER") == "broken":
        raise ImportError("this library is broken")
    return FakeSink()
