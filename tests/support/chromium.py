"""A headless Chromium, driven through its DevTools protocol over a pipe, with the standard library alone."""

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    *(
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-extensions",
    ),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"),
    *("--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1", "--remote-debugging-pipe"),
]
FOLLOW = {"autoAttach": True, "waitForDebuggerOnStart": True, "flatten": True}


class Chromium:
    """A browser with one page. Use it as a context.

    Args:
      folder: receives the profile.
      size: (width, height) of the window.
      flags: further flags of the program.

    Attributes:
      events: what the page and its workers have reported: (method, parameters).
    """

    def __init__(self, folder: Path, size: tuple[int, int] = (1280, 900), flags: Sequence[str] = ()):
        to_browser, self._out = os.pipe()
        self._in, from_browser = os.pipe()
        command = [
            PROGRAM,
            *FLAGS,
            *flags,
            f"--user-data-dir={folder}",
            f"--window-size={size[0]},{size[1]}",
            "about:blank",
        ]
        # The browser reads from descriptor 3 and writes to 4.
        shell = ["bash", "-c", f'exec "$@" 3<&{to_browser} 4>&{from_browser}', "bash", *command]
        environment = os.environ | {"HOME": str(folder)}
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(shell, pass_fds=(to_browser, from_browser), env=environment, **quiet)
        os.close(to_browser)
        os.close(from_browser)
        self._received, self._number, self._session = b"", 0, None
        self.events: list[tuple[str, dict[str, Any]]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Target.setAutoAttach", **FOLLOW)

    def __enter__(self) -> "Chromium":
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._out)
        os.close(self._in)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result; events that come first are kept."""
        number = self._send(method, parameters, self._session)
        while True:
            found = self._next()
            if found.get("id") == number:
                assert "error" not in found, f"{method}: {found['error']}"
                return found["result"]
            if "id" in found:  # the answer of a worker
                continue
            self.events.append((found["method"], found["params"]))
            if found["method"] == "Target.attachedToTarget":
                self._follow(found["params"]["sessionId"])

    def open(self, page: Path | str, wait_s: float = 20) -> None:
        """Open a page from the disk or from an address, and wait until its script has drawn everything."""
        self.events.clear()
        self.call("Page.navigate", url=page if isinstance(page, str) else page.as_uri())
        self.wait("document.body !== null && document.body.dataset.ready === 'true'", wait_s)

    def wait(self, expression: str, wait_s: float = 20) -> None:
        """Wait until an expression in the page is true."""
        end = time.monotonic() + wait_s
        while not self.evaluate(expression):
            assert time.monotonic() < end, f"not true in {wait_s} s: {expression}; {self.complaints()}"
            time.sleep(0.05)

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression in the page."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def press(self, key: str) -> None:
        """Press a key, such as `ArrowRight`, where the focus is."""
        codes = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Enter": 13, "Tab": 9, "Escape": 27}
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=codes[key])

    def requests(self) -> list[str]:
        """Return the addresses that the page has asked for, without those inside the page."""
        urls = [params["request"]["url"] for method, params in self.events if method == "Network.requestWillBeSent"]
        return [url for url in urls if not url.startswith("data:")]

    def complaints(self) -> list[str]:
        """Return what the page wrote to the console: errors, warnings and all else.

        A warning about reading a canvas often is left out: the page never reads one, but tests do.
        """
        kinds = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        found = [json.dumps(params) for method, params in self.events if method in kinds]
        return [text for text in found if "Canvas2D: Multiple readback" not in text]

    def picture(self, path: Path, *, is_whole: bool = False, top: int | None = None) -> None:
        """Write a screenshot of the window, of the whole page, or of the window after scrolling to `top`."""
        if top is not None:
            self.evaluate(f"window.scrollTo({{top: {top}, behavior: 'instant'}})")
            time.sleep(0.1)
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=is_whole)
        path.write_bytes(base64.b64decode(found["data"]))

    def print_to(self, path: Path) -> None:
        """Print the page to a PDF file."""
        path.write_bytes(base64.b64decode(self.call("Page.printToPDF", printBackground=False)["data"]))

    def _send(self, method: str, parameters: dict[str, Any], session: str | None) -> int:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        return self._number

    def _follow(self, session: str) -> None:
        """Listen to a worker, and to the workers that it starts; it waits for this before it begins."""
        for domain in ("Runtime", "Log", "Network"):
            self._send(f"{domain}.enable", {}, session)
        self._send("Target.setAutoAttach", FOLLOW, session)
        self._send("Runtime.runIfWaitingForDebugger", {}, session)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._received:
            readable, _, _ = select.select([self._in], [], [], 30)
            assert readable, "the browser has not answered in 30 s"
            part = os.read(self._in, 1 << 20)
            assert part, "the browser has ended"
            self._received += part
        message, _, self._received = self._received.partition(b"\0")
        return json.loads(message)
