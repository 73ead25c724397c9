"""`pyrseg serve` on loopback: 1,000 requests of mixed sizes by 8 clients, against the files of `pyrseg predict`.

    python benchmarks/serving.py --photos=FOLDER [--model=camvid-small] [--requests=1000] [--clients=8] [--json=FILE]

The photographs of FOLDER are resized to four sizes, and `predict` segments all of them. Then the server is started for these sizes.
It gets requests one by one, and then as many as there are clients at a time. Every answer must equal the file of `predict`, byte by
byte, no program may be compiled after the start, and memory must not grow; otherwise the exit status is 1.
"""

import argparse
import collections
import http.client
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from timing import describe_machine, print_table, write_json

SIZES = ((360, 480), (480, 360), (180, 240), (240, 320))  # height × width
NUM_PHOTOS = 10
MAX_GROWTH_MB = 100  # of memory, from the first tenth of the requests to the end


class Server:
    """A server in a process of its own. `port`: where it listens; `ready_s`: seconds until it was ready."""

    def __init__(self, model: str):
        sizes = ",".join(f"{height}x{width}" for height, width in SIZES)
        command = [sys.executable, "-m", "pyrseg_jax.main", "serve", model, f"--sizes={sizes}", "--port=0"]
        start = time.perf_counter()
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])
        assert self.process.stderr is not None
        self.port, lines = 0, []
        for line in self.process.stderr:
            lines.append(line)
            if found := re.search(r"listening on http://[\d.]+:(\d+)", line):
                self.port = int(found[1])
            if "ready after" in line:
                break
        else:
            raise RuntimeError("".join(lines))
        self.ready_s = time.perf_counter() - start
        # The pipe must be read, or the log would block the server.
        self._reader = threading.Thread(target=collections.deque, args=(self.process.stderr, 1), daemon=True)
        self._reader.start()

    def value(self, name: str) -> float:
        """Return a value of the page of metrics."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        connection.request("GET", "/metrics")
        found = re.search(rf"^{name} (\S+)$", connection.getresponse().read().decode(), re.MULTILINE)
        connection.close()
        assert found is not None, name
        return float(found[1])

    def end(self) -> int:
        """Stop the server, and return its exit status."""
        self.process.terminate()
        return self.process.wait(120)


def write_photos(source: Path, target: Path) -> None:
    """Write the first photographs of a folder in every size, as JPEG."""
    paths = sorted(path for path in source.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))[:NUM_PHOTOS]
    if not paths:
        raise SystemExit(f"{source} holds no JPEG or PNG: name a folder of photographs with --photos")
    for number, path in enumerate(paths):
        image = Image.open(path).convert("RGB")
        for height, width in SIZES:
            image.resize((width, height)).save(target / f"{number}_{height}x{width}.jpg", quality=95)


def ask_all(
    port: int, photos: dict[str, bytes], names: list[str], num_clients: int
) -> Iterator[tuple[str, float, bytes]]:
    """Ask for the label map of each photograph, over one connection per client; yield name, seconds and answer."""
    local = threading.local()

    def ask(name: str) -> tuple[str, float, bytes]:
        if not hasattr(local, "connection"):
            local.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        start = time.perf_counter()
        local.connection.request("POST", "/v1/segment", photos[name], {"Content-Type": "image/jpeg"})
        response = local.connection.getresponse()
        body = response.read()
        if response.status != 200:
            raise RuntimeError(f"{response.status}: {body.decode(errors='replace')}")
        return name, time.perf_counter() - start, body

    with ThreadPoolExecutor(num_clients) as clients:
        yield from clients.map(ask, names)


def measure(server: Server, photos: dict[str, bytes], labels: dict[str, bytes], number: int, num_clients: int) -> dict:
    """Send a number of requests; return the latencies, the rate, the number of wrong answers, and memory over time."""
    rng = np.random.default_rng(num_clients)
    names = [str(name) for name in rng.choice(sorted(photos), number)]
    seconds, num_wrong, memory = [], 0, []
    start = time.perf_counter()
    for index, (name, elapsed, body) in enumerate(ask_all(server.port, photos, names, num_clients), 1):
        seconds.append(elapsed)
        num_wrong += body != labels[name]
        if index % (-(-number // 10)) == 0 or index == number:
            memory.append(server.value("process_resident_memory_bytes") / 1e6)
            print(f"{num_clients} clients: {index} of {number}, {memory[-1]:.0f} MB", flush=True)
    total = time.perf_counter() - start
    p50, p95 = (1e3 * float(np.percentile(seconds, share)) for share in (50, 95))
    return {
        "clients": num_clients,
        "requests": number,
        "p50_ms": p50,
        "p95_ms": p95,
        "per_second": number / total,
        "wrong": num_wrong,
        "memory_mb": memory,
    }


def main() -> int:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--model", default="camvid-small")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder, out = Path(place) / "photos", Path(place) / "out"
        folder.mkdir()
        write_photos(options.photos, folder)
        arguments = [f"--model={options.model}", f"--input={folder}", f"--output={out}", "--outputs=labels"]
        subprocess.run(
            [sys.executable, "-m", "pyrseg_jax.main", "predict", *arguments],
            check=True, stderr=subprocess.DEVNULL, cwd=Path(__file__).parents[1],
        )  # fmt: skip
        photos = {path.stem: path.read_bytes() for path in folder.iterdir()}
        labels = {name: (out / f"{name}.png").read_bytes() for name in photos}
    server = Server(options.model)
    try:
        compiled = server.value("pyrseg_compilations_total")
        rows = [measure(server, photos, labels, min(max(options.requests // 10, 1), 100), 1)]
        rows.append(measure(server, photos, labels, options.requests, options.clients))
        num_compiled = server.value("pyrseg_compilations_total") - compiled
    finally:
        status = server.end()
    print(
        f"\n{describe_machine()}; {options.model}, {', '.join(f'{h} × {w}' for h, w in SIZES)}; ready after {server.ready_s:.1f} s"
    )
    print_table(
        ["clients", "requests", "p50 ms", "p95 ms", "per second", "wrong", "memory MB, first → last tenth"],
        [
            [
                *(str(row["clients"]), str(row["requests"]), f"{row['p50_ms']:.0f}", f"{row['p95_ms']:.0f}"),
                *(
                    f"{row['per_second']:.2f}",
                    str(row["wrong"]),
                    f"{row['memory_mb'][0]:.0f} → {row['memory_mb'][-1]:.0f}",
                ),
            ]
            for row in rows
        ],
    )
    growth = rows[-1]["memory_mb"][-1] - rows[-1]["memory_mb"][0]
    print(
        f"programs compiled after the start: {num_compiled:.0f}; exit status after SIGTERM: {status}; growth {growth:+.0f} MB"
    )
    if options.json:
        write_json(options.json, {"ready_s": server.ready_s, "rows": rows, "compiled_after_start": num_compiled})
    is_right = not num_compiled and not status and growth < MAX_GROWTH_MB and not any(row["wrong"] for row in rows)
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(main())
