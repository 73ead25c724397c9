"""Damage each file of a small run, of a prepared data set, and each part of an export, and use them every time.

    python benchmarks/damage.py [checkpoint] [run] [prepared] [export] [--flips=64]

Each file is emptied, cut to half of its length, removed, or has one bit flipped in its middle.

* checkpoint: the files of the newest checkpoint. Restoring must report the damage and return the previous checkpoint, bit for bit;
  or return the newest one, if the damaged part is never read.
* run: all other files of the run. Loading, evaluating, and training on must give what they give for the intact run, or
  end with one line. Loading is also tried with single bits flipped all over each JSON file.
* prepared: the files of a prepared data set. Reading all of it must give the same pixels, or end with one line.
* export: the file of an exported model, also with single bits flipped all over it; and each of its parts, also replaced by another.
  Loading it must give a model that predicts the same probabilities, or end with one line.

Prints the outcome of each trial and a table, and exits with status 1 if any outcome is none of these.
"""

import argparse
import collections
import contextlib
import io
import json
import logging
import shutil
import sys
import tempfile
import traceback
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import jax  # noqa: E402
import numpy as np  # noqa: E402
from support import killed_runs  # noqa: E402
from support.exports import write_toy  # noqa: E402
from support.native_files import write_ade20k  # noqa: E402

import pyrseg_jax  # noqa: E402
from pyrseg_jax import main as command_line  # noqa: E402
from pyrseg_jax.data.catalog import open_dataset  # noqa: E402
from pyrseg_jax.data.decode import decode_pair  # noqa: E402
from pyrseg_jax.distributed import mesh as mesh_lib  # noqa: E402
from pyrseg_jax.errors import UserError, escaped  # noqa: E402
from pyrseg_jax.models.initial import abstract_variables  # noqa: E402
from pyrseg_jax.run import experiment  # noqa: E402
from pyrseg_jax.run.workdir import Workdir  # noqa: E402
from pyrseg_jax.training.checkpoint import Checkpoints, abstract_on  # noqa: E402
from pyrseg_jax.training.step import TrainState, initial_state  # noqa: E402

WAYS = ("emptied", "cut", "removed", "bit")
SETTINGS = {"training.steps": 4, "training.save_every": 2, "training.evaluate_every": 4}
RIGHT, ONE_LINE, PREVIOUS = "as if intact", "one line", "the previous checkpoint"
GOOD = (RIGHT, ONE_LINE, PREVIOUS)
CLOCK = ("seconds", "compiled_programs")  # values of an evaluation that differ from start to start

Outcomes = Iterator[tuple[str, str, str]]  # what was damaged, how, and what came of it


def damage(file: Path, way: str) -> None:
    """Damage a file in one of `WAYS`."""
    if way == "removed":
        file.unlink()
    else:
        file.write_bytes(damaged(file.read_bytes(), way))


def damaged(content: bytes, way: str) -> bytes:
    """Return damaged content."""
    if way == "bit" and content:
        return flipped(content, 8 * (len(content) // 2) + 2)
    return content if way == "bit" else content[: len(content) // 2 if way == "cut" else 0]


def flipped(content: bytes, bit: int) -> bytes:
    """Return content with one bit flipped."""
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def outcome(use: Callable[[], str]) -> str:
    """Use something damaged: `use` returns what came of it, and may raise a UserError."""
    try:
        return use()
    except UserError as error:
        lines = escaped(str(error)).splitlines()
        return ONE_LINE if len(lines) == 1 else f"{len(lines)} lines"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:160]} ({traceback.extract_tb(error.__traceback__)[-1].name})"


def damage_checkpoint(run: Path, root: Path) -> Outcomes:
    """Damage the files of the newest checkpoint of a run, and restore the newest one that is intact."""
    workdir = Workdir(str(run))
    config = workdir.read_config()
    model = experiment.make_model(config, workdir.read_label_space().num_classes)
    variables = abstract_variables(model, 2 * config.model.strides[0])
    state = jax.eval_shape(lambda v: initial_state(v, experiment.make_optimizer(config)), variables)
    abstract = abstract_on(state, mesh_lib.replicated(mesh_lib.make_mesh(data=1)))
    whole, expected = run / "checkpoints", {}
    for step in (2, 4):
        with contextlib.closing(Checkpoints(whole, is_reader=True)) as checkpoints:
            expected[step] = checkpoints.restore(abstract, step)

    def restore() -> str:
        with contextlib.closing(Checkpoints(root / "copy", is_reader=True)) as checkpoints:
            found = checkpoints.restore(abstract)
        assert found is not None
        step = int(found.step)
        return (RIGHT if step == 4 else PREVIOUS) if is_equal(found, expected[step]) else "wrong bits"

    for file in sorted(path.relative_to(whole) for path in (whole / "4").rglob("*") if path.is_file()):
        for way in WAYS:
            shutil.copytree(whole, root / "copy")
            damage(root / "copy" / file, way)
            yield str(file), way, outcome(restore)
            shutil.rmtree(root / "copy")


def is_equal(state: TrainState, other: TrainState) -> bool:
    """Compare two states bit by bit."""
    pairs = zip(jax.tree.leaves(jax.device_get(state)), jax.tree.leaves(jax.device_get(other)), strict=True)
    return all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in pairs)


def damage_run(run: Path, root: Path, num_flips: int) -> Outcomes:
    """Damage every file of a run outside its checkpoints, and load, evaluate and train on."""
    image = np.random.default_rng(0).integers(0, 256, (60, 64, 3), np.uint8)
    expected = _loaded(run, image)
    evaluation = _evaluation(run)
    copy = root / "copy"

    def load() -> str:
        return RIGHT if _loaded(copy, image) == expected else "another model"

    def command(*arguments: str) -> str:
        text = io.StringIO()
        with contextlib.redirect_stderr(text), contextlib.redirect_stdout(io.StringIO()):
            status = command_line.main(["pyrseg", *arguments, f"--workdir={copy}"])
        lines = text.getvalue().splitlines()
        if status:
            is_told = (
                status == 1 and bool(lines) and lines[-1].startswith("error: ") and "Traceback" not in text.getvalue()
            )
            return ONE_LINE if is_told else f"status {status}: {lines[-1:]}"
        return RIGHT if _evaluation(copy) == evaluation else "another evaluation"

    uses = {"load": load, "evaluate": lambda: command("evaluate"), "train": lambda: command("train")}
    files = [path.relative_to(run) for path in sorted(run.rglob("*")) if path.is_file()]
    for file in (file for file in files if file.parts[0] != "checkpoints" or len(file.parts) == 2):
        for way in WAYS:
            for name, use in uses.items():
                shutil.copytree(run, copy)
                damage(copy / file, way)
                yield f"{file} ({name})", way, outcome(use)
                shutil.rmtree(copy)
        content = (run / file).read_bytes()
        for bit in _spread(content, num_flips) if file.suffix == ".json" else ():
            shutil.copytree(run, copy)
            (copy / file).write_bytes(flipped(content, bit))
            yield f"{file} (load)", f"bit {bit}: {flipped(content, bit)[bit // 8 - 8 : bit // 8 + 8]!r}", outcome(load)
            shutil.rmtree(copy)


def _spread(content: bytes, num_bits: int) -> list[int]:
    return sorted(set(np.linspace(0, 8 * len(content) - 1, num_bits).astype(int).tolist()))


def damage_prepared(root: Path, num_flips: int) -> Outcomes:
    """Damage every file of a prepared data set, and read the data set."""
    ade, whole, copy = write_ade20k(root / "ade"), root / "prepared", root / "copy"

    def read(store: Path) -> dict[str, list[bytes]]:
        dataset = open_dataset("ade20k", str(ade), str(store))
        sources = {split: dataset.open_split(split) for split in ("training", "validation")}
        pairs = {split: [source[i] for i in range(len(source))] for split, source in sources.items()}
        return {
            s: [b"".join(map(np.ascontiguousarray, decode_pair(p, dataset.label_space))) for p in pairs[s]]
            for s in pairs
        }

    expected = read(whole)

    def use() -> str:
        return RIGHT if read(copy) == expected else "other pixels"

    for file in sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file()):
        content = (whole / file).read_bytes()
        changes = {way: damaged(content, way) for way in WAYS}
        changes |= {
            f"bit {bit}": flipped(content, bit) for bit in _spread(content, num_flips)[: num_flips if content else 0]
        }
        for way, changed in changes.items():
            shutil.copytree(whole, copy)
            (copy / file).write_bytes(changed) if way != "removed" else (copy / file).unlink()
            yield "/".join(file.parts[-2:]), way, outcome(use)
            shutil.rmtree(copy)


def _loaded(run: Path, image: np.ndarray) -> tuple[bytes, bytes, tuple[str, ...]]:
    found = pyrseg_jax.load(run)(image)
    return found.labels.tobytes(), np.asarray(found.probs).tobytes(), found.label_space.names


def _evaluation(run: Path) -> list[dict]:
    """Return the results in a run; of a damaged file, which stays where it is, the new result beside it."""
    found = []
    for file in sorted((run / "evaluation").glob("*.json")):
        with contextlib.suppress(json.JSONDecodeError, UnicodeDecodeError):
            found.append({k: v for k, v in json.loads(file.read_text()).items() if k not in CLOCK})
    return found


def damage_export(root: Path, num_flips: int) -> Outcomes:
    """Damage an exported model as a file, and each of its parts."""
    path, copy = write_toy(root / "model.zip", sizes=((16, 24),)), root / "damaged.zip"
    image = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)
    content, expected = path.read_bytes(), _loaded(path, image)

    def load() -> str:
        return RIGHT if _loaded(copy, image) == expected else "another model"

    def trial(data: bytes) -> str:
        copy.write_bytes(data)
        return outcome(load)

    for way in ("emptied", "cut"):
        yield "the file", way, trial(damaged(content, way))
    for bit in _spread(content, num_flips):
        yield "the file", f"bit {bit}", trial(flipped(content, bit))
    with zipfile.ZipFile(path) as file:
        parts = {name: file.read(name) for name in file.namelist()}
    for name, data in parts.items():
        for way in WAYS:
            others = {other: parts[other] for other in parts if other != name}
            yield name, way, trial(_packed(others if way == "removed" else others | {name: damaged(data, way)}))
        for other in parts:
            if other != name:
                yield name, f"replaced by {other}", trial(_packed(parts | {name: parts[other]}))


def _packed(parts: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, data in parts.items():
            file.writestr(name, data)
    return buffer.getvalue()


def main() -> int:
    """Damage what the command line names, print each outcome, and count them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("kinds", nargs="*", default=["checkpoint", "run", "prepared", "export"], help="by default all")
    parser.add_argument("--flips", type=int, default=64, help="flipped bits of a file")
    options = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    experiment.use_compilation_cache()
    logging.disable(logging.WARNING)
    counts: dict[str, collections.Counter] = {}
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        run = root / "run"
        if set(options.kinds) & {"checkpoint", "run"}:
            killed_runs.write_images(root / "data", 6, 3)
            killed_runs.Run(root / "data", run, SETTINGS).finish()
        trials = {
            "checkpoint": lambda: damage_checkpoint(run, root),
            "run": lambda: damage_run(run, root, options.flips),
            "prepared": lambda: damage_prepared(root, options.flips),
            "export": lambda: damage_export(root, options.flips),
        }
        for kind in options.kinds:
            counts[kind] = collections.Counter()
            for what, way, found in trials[kind]():
                counts[kind][found] += 1
                print(f"{'' if found in GOOD else 'WRONG '}{what[:74]:<74} {way:<24} {found}", flush=True)
    for kind, found in counts.items():
        print(f"{kind}: {found.total()} trials: {dict(found)}")
    return 1 if any(set(found) - set(GOOD) for found in counts.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
