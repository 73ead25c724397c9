"""Search for bytes that break a reader of files: images, label maps, `.mat`, zips, tars, exports, JSON, weights, lists of names.

    pip install -r benchmarks/requirements-fuzz.txt
    python benchmarks/fuzz.py image --seconds=300      # one reader
    python benchmarks/fuzz.py --all --seconds=300      # each reader for so long
    python benchmarks/fuzz.py --all --reduce           # reduce the corpus, and put it into benchmarks/fuzz_corpus/

Atheris (libFuzzer for Python) changes small valid files again and again and keeps the changes that reach new branches. Whatever
the bytes are, a reader must return a valid object or raise a UserError of one line, within bounds of time and memory, and
without starting programs, connecting, unpickling, or writing elsewhere; `tests/support/hostile.py` states the exact bounds. Only
Python code guides the search: libraries of native code (libjpeg, libpng, HDF5, MLIR) are run, but their branches are not seen.

A fault is noted in the working folder (`--work`) as the input and the traceback, and the search goes on.
`tests/test_fuzz_corpus.py` replays the corpus that was kept. Exits with status 1 if any fault was found.
"""

import argparse
import collections
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

KEPT = Path(__file__).parent / "fuzz_corpus"
MAX_LENGTH = 2**16  # bytes of an input
MAX_KEPT = 6_000  # bytes of an input that is kept
MAX_FILES = 36  # inputs that are kept for each reader
LIMITS = ("-close_fd_mask=3", "-rss_limit_mb=8192", "-malloc_limit_mb=6144", "-timeout=120", "-report_slow_units=120")
NAMES = (
    "image",
    "label",
    "pair",
    "mat",
    "zip",
    "tar",
    "export",
    "document",
    "safetensors",
    "pth",
    "classes",
    "metrics",
    "name",
)
SECONDS_PER_INPUT = (
    20.0  # of processor time; the replay allows less, but its inputs are small and its code is not instrumented
)


def main() -> int:
    """Fuzz the readers that the command line names, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("readers", nargs="*", choices=[*NAMES, []], help="by default none; see --all")
    parser.add_argument("--all", action="store_true", help="try every reader")
    parser.add_argument("--seconds", type=int, default=60, help="for each reader")
    parser.add_argument("--seed", type=int, default=1, help="of the random changes")
    parser.add_argument(
        "--work", type=Path, default=Path("fuzz_work"), help="folder for the corpus, the logs and the faults"
    )
    parser.add_argument("--reduce", action="store_true", help="keep a small corpus instead of searching")
    options = parser.parse_args()
    names = NAMES if options.all else options.readers
    if options.reduce:
        for name in names:
            print(f"{name}: {reduce(name, options.work / name)} inputs are kept")
        return 0
    print(
        f"{'reader':<12}{'seconds':>8}{'inputs':>11}{'per s':>8}{'accepted':>10}{'branches':>9}{'corpus':>7}{'faults':>7}"
    )
    return 1 if sum([search(name, options.work / name, options.seconds, options.seed) for name in names]) else 0


def search(name: str, folder: Path, seconds: int, seed: int) -> int:
    """Fuzz one reader, print its row of the table, and return the number of distinct faults."""
    corpus, faults, log = folder / "corpus", folder / "faults", folder / "log.txt"
    for place in (corpus, faults):
        place.mkdir(parents=True, exist_ok=True)
    write_seeds(name, corpus)
    start, totals, branches = time.monotonic(), collections.Counter(), 0
    # A crash or a bound of libFuzzer ends the process; the search goes on with another seed.
    while (left := seconds - (time.monotonic() - start)) > 5:
        with log.open("wb") as output:
            arguments = [
                f"-max_total_time={int(left)}",
                f"-seed={seed}",
                f"-max_len={MAX_LENGTH}",
                "-print_final_stats=1",
            ]
            arguments += [*LIMITS, f"-artifact_prefix={faults}/native-", str(corpus)]
            run_child(name, folder, arguments, output)
        counts = json.loads((folder / "stats.json").read_text())
        if not counts:
            raise RuntimeError(f"libFuzzer did not start: {log.read_text(errors='replace')[-2000:]}")
        totals.update(counts)
        found = re.findall(r"\bcov: (\d+)", log.read_text(errors="replace"))
        branches, seed = max([branches, *map(int, found)]), seed + 1
    taken, num_faults = time.monotonic() - start, len({file.stem for file in faults.iterdir()})
    inputs, accepted, num_kept = totals["inputs"], totals["accepted"], len(list(corpus.iterdir()))
    row = f"{name:<12}{taken:>8.0f}{inputs:>11,}{inputs / taken:>8.0f}{100 * accepted / max(inputs, 1):>8.1f} %"
    print(f"{row}{branches:>9,}{num_kept:>7}{num_faults:>7}", flush=True)
    return num_faults


def write_seeds(name: str, corpus: Path) -> None:
    """Write the valid files of a reader, and the inputs kept before, into a folder."""
    from support.hostile_seeds import seeds_of

    for seed, data in seeds_of(name).items():
        (corpus / f"seed-{seed}").write_bytes(data)
    for file in sorted((KEPT / name).glob("*")):
        shutil.copyfile(file, corpus / file.name)


def run_child(name: str, folder: Path, arguments: list[str], output) -> int:
    """Run libFuzzer in a process of its own, because it ends the process at the end."""
    (folder / "stats.json").write_text("{}")
    command = [sys.executable, __file__, "--child", name, str(folder), *arguments]
    # Every trial makes a folder: in memory, that takes a tenth of the time that it takes on a disk.
    memory = {"TMPDIR": "/dev/shm"} if Path("/dev/shm").is_dir() else {}
    environment = os.environ | {"JAX_PLATFORMS": "cpu"} | memory
    return subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, env=environment).returncode


def reduce(name: str, folder: Path) -> int:
    """Keep the smallest inputs that together reach the branches that all reach, and every input that showed a fault."""
    merged, kept = folder / "merged", KEPT / name
    shutil.rmtree(merged, ignore_errors=True)
    merged.mkdir(parents=True)
    (folder / "corpus").mkdir(exist_ok=True)
    write_seeds(name, folder / "corpus")
    with (folder / "merge.txt").open("wb") as output:
        run_child(
            name, folder, ["-merge=1", *LIMITS, f"-max_len={MAX_LENGTH}", str(merged), str(folder / "corpus")], output
        )
    files = [file for file in merged.iterdir() if file.stat().st_size <= MAX_KEPT]
    chosen = sorted(files, key=lambda file: (file.stat().st_size, file.name))
    # Evenly over the sizes: the smallest inputs alone would all be refused at once.
    chosen = chosen[:: max(1, -(-len(chosen) // MAX_FILES))]
    chosen += [file for file in (folder / "faults").glob("*.input") if file.stat().st_size <= MAX_LENGTH]
    chosen += list(kept.glob("fault-*"))
    contents = {_kept_name(file): file.read_bytes() for file in chosen}
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(parents=True)
    for file_name, data in contents.items():
        (kept / file_name).write_bytes(data)
    return len(contents)


def _kept_name(file: Path) -> str:
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:12]
    return f"fault-{digest}" if file.name.startswith("fault-") or file.suffix == ".input" else digest


def child(name: str, folder: Path, arguments: list[str]) -> None:
    """Hand the process over to libFuzzer; never returns."""
    import atheris  # pyright: ignore[reportMissingImports]  # see requirements-fuzz.txt

    modules = {"mat": ("h5py",)}.get(name, ("PIL",) if name in ("image", "label", "pair") else ())
    if name == "pth":
        import torch  # noqa: F401  # instrumenting all of it would take minutes
    with atheris.instrument_imports(include=["pyrseg_jax", "zipfile", "json", *modules]):
        from support import hostile, hostile_mutators
        from support.hostile_readers import READERS
        from support.hostile_seeds import seeds_of

        reader = READERS[name]
        for data in seeds_of(name).values():  # imports more modules
            hostile.warm_up(reader.read, data)
    counts, stats, last = collections.Counter(), folder / "stats.json", time.monotonic()

    def one_input(data: bytes) -> None:
        nonlocal last
        counts["inputs"] += 1
        try:
            counts["accepted"] += not hostile.trial(reader.read, data, SECONDS_PER_INPUT)
        except Exception as error:
            note_fault(folder / "faults", data, error)
        if time.monotonic() - last > 2 or counts["inputs"] % 50_000 == 1:
            last = time.monotonic()
            stats.write_text(json.dumps(counts))

    def mutator(data: bytes, limit: int, seed: int) -> bytes:
        return hostile_mutators.changed(reader.form, bytes(data), limit, seed, atheris.Mutate)

    # To reduce a corpus, libFuzzer starts itself again, by giving this text and its arguments to a shell.
    itself = shlex.join([sys.executable, __file__, "--child", name, str(folder)])
    atheris.Setup([itself, *arguments], one_input, custom_mutator=mutator)
    atheris.Fuzz()


def note_fault(folder: Path, data: bytes, error: Exception) -> None:
    """Write the smallest input of each kind of fault; the kind is the type of the exception and where it came from."""
    frames = traceback.extract_tb(error.__traceback__)
    place = next((f for f in reversed(frames) if "/pyrseg_jax/" in f.filename), frames[-1])
    kind = f"{type(error).__name__}-{Path(place.filename).stem}-{place.lineno}"
    file = folder / f"{kind}.input"
    if not file.exists() or file.stat().st_size > len(data):
        file.write_bytes(data)
        (folder / f"{kind}.txt").write_text(traceback.format_exc()[-6000:])


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], Path(sys.argv[3]), sys.argv[4:])
    sys.exit(main())
