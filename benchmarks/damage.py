"""Damage each file of a small run's newest checkpoint in four ways, and restore the run every time.

    python benchmarks/damage.py

Each file is emptied, cut to half of its length, removed, or has one bit flipped in its middle. Restoring must report the damage
and return the previous checkpoint, bit for bit; or return the newest one, if the damaged part is never read. Prints the outcome
for each file, and exits with status 1 if any restored state is neither of the two.
"""

import collections
import logging
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import jax  # noqa: E402
import numpy as np  # noqa: E402
from support import killed_runs  # noqa: E402

from pyrseg_jax.distributed import mesh as mesh_lib  # noqa: E402
from pyrseg_jax.models.initial import abstract_variables  # noqa: E402
from pyrseg_jax.run import experiment  # noqa: E402
from pyrseg_jax.run.workdir import Workdir  # noqa: E402
from pyrseg_jax.training.checkpoint import Checkpoints, abstract_on  # noqa: E402
from pyrseg_jax.training.step import TrainState, initial_state  # noqa: E402

WAYS = ("emptied", "cut", "removed", "bit")
SETTINGS = {"training.steps": 4, "training.save_every": 2, "training.evaluate_every": 4}


def damage(file: Path, way: str) -> None:
    """Damage a file in one of `WAYS`."""
    content = bytearray(file.read_bytes())
    if way == "removed":
        file.unlink()
        return
    if way == "bit" and content:
        content[len(content) // 2] ^= 4
    file.write_bytes(content if way == "bit" else content[: len(content) // 2 if way == "cut" else 0])


def restore(directory: Path, abstract: TrainState) -> TrainState | str:
    """Restore the newest checkpoint that is intact, or return the error as text."""
    try:
        checkpoints = Checkpoints(directory, is_reader=True)
        return checkpoints.restore(abstract)
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:200]}"


def is_equal(state: TrainState, other: TrainState) -> bool:
    """Compare two states bit by bit."""
    pairs = zip(jax.tree.leaves(jax.device_get(state)), jax.tree.leaves(jax.device_get(other)), strict=True)
    return all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in pairs)


def main() -> int:
    """Train, damage the checkpoint, restore it, and count the outcomes."""
    jax.config.update("jax_platforms", "cpu")
    logging.disable(logging.WARNING)
    counts, wrong = collections.Counter(), []
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        killed_runs.write_images(root / "data", 6, 3)
        run = killed_runs.Run(root / "data", root / "run", SETTINGS)
        run.finish()
        workdir = Workdir(str(root / "run"))
        config = workdir.read_config()
        model = experiment.make_model(config.model, workdir.read_label_space().num_classes)
        variables = abstract_variables(model, 2 * config.model.strides[0])
        state = jax.eval_shape(lambda v: initial_state(v, experiment.make_optimizer(config)), variables)
        abstract = abstract_on(state, mesh_lib.replicated(mesh_lib.make_mesh(data=1)))
        whole = root / "run" / "checkpoints"
        expected = {}
        for step in (2, 4):
            checkpoints = Checkpoints(whole, is_reader=True)
            expected[step] = checkpoints.restore(abstract, step)
            checkpoints.close()
        files = sorted(path.relative_to(whole) for path in (whole / "4").rglob("*") if path.is_file())
        for file in files:
            for way in WAYS:
                copy = root / "copy"
                shutil.copytree(whole, copy)
                damage(copy / file, way)
                found = restore(copy, abstract)
                if isinstance(found, str):
                    kind = found
                else:
                    step = int(found.step)
                    kind = f"the checkpoint of step {step}" if is_equal(found, expected[step]) else "wrong bits"
                counts[kind] += 1
                if not kind.startswith("the checkpoint"):
                    wrong.append(f"{file} {way}: {kind}")
                print(f"{str(file)[:70]:<70} {way:<8} {kind}", flush=True)
                shutil.rmtree(copy)
    print(f"{len(files)} files, {len(WAYS)} ways: {dict(counts)}")
    print("\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
