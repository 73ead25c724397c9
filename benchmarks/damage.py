"""Damage every file of a small run's newest checkpoint in turn, in four ways, and restore.

    python benchmarks/damage.py

Each file is emptied, cut to half, removed, or has a bit flipped in its middle. Restoring must give, to the bit, the checkpoint
before and tell the damage; or the newest one, where the damage touched nothing that is read. Prints which files were of which
kind, and ends with status 1 if a state came back that is neither.
"""

import collections
import logging
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import jax
import numpy as np
from support import kills

from pyrseg_jax.distributed import mesh as mesh_lib
from pyrseg_jax.models.initial import abstract_variables
from pyrseg_jax.run import experiment
from pyrseg_jax.run.workdir import Workdir
from pyrseg_jax.training.checkpoint import Checkpoints, abstract_on
from pyrseg_jax.training.step import TrainState, initial_state

WAYS = ("emptied", "cut", "removed", "bit")
SETTINGS = {"training.steps": 4, "training.save_every": 2, "training.evaluate_every": 4}


def damage(file: Path, way: str) -> None:
    """Damage a file in one of the `WAYS`."""
    content = bytearray(file.read_bytes())
    if way == "removed":
        file.unlink()
        return
    if way == "bit" and content:
        content[len(content) // 2] ^= 4
    file.write_bytes(content if way == "bit" else content[: len(content) // 2 if way == "cut" else 0])


def restore(directory: Path, abstract: TrainState) -> TrainState | str:
    """Restore what can be; or return the error."""
    try:
        checkpoints = Checkpoints(directory, is_reader=True)
        return checkpoints.restore(abstract)
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:200]}"


def is_equal(state: TrainState, other: TrainState) -> bool:
    """Compare all bits."""
    pairs = zip(jax.tree.leaves(jax.device_get(state)), jax.tree.leaves(jax.device_get(other)), strict=True)
    return all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in pairs)


def main() -> int:
    """Train, damage, restore, count."""
    jax.config.update("jax_platforms", "cpu")
    logging.disable(logging.WARNING)
    counts, wrong = collections.Counter(), []
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        kills.write_images(root / "data", 6, 3)
        run = kills.Run(root / "data", root / "run", SETTINGS)
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
