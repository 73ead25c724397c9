"""One of two processes that each hold half of a state; one of them cannot read its half of the newest checkpoint.

python tests/support/damage_of_one.py PROCESS PORT FOLDER

`test_recovery.py` starts both processes.
"""

import logging
import sys
from pathlib import Path

import jax
import numpy as np
import optax

sys.path.insert(0, str(Path(__file__).parents[2]))

from pyrseg_jax.distributed import mesh as mesh_lib
from pyrseg_jax.distributed import processes
from pyrseg_jax.training.checkpoint import Checkpoints, abstract_on
from pyrseg_jax.training.step import initial_state


def make_state(step: int):
    """Make a state whose kernel is large enough to be sharded."""
    kernel = np.random.default_rng(step).normal(size=(4096, 64)).astype(np.float32)
    variables = {"params": {"kernel": kernel}, "batch_stats": {"mean": np.ones(8, np.float32)}}
    return jax.tree.map(np.asarray, initial_state(variables, optax.sgd(0.1)).replace(step=np.int32(step)))


def main(process: int, port: int, folder: Path) -> None:
    """Save two checkpoints, truncate the second process's part of the newer one, and restore."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    processes.start("on", f"localhost:{port}", 2, process)
    sharding = mesh_lib.state_sharding(mesh_lib.make_mesh(), make_state(0), is_sharded=True)
    checkpoints = Checkpoints(folder)
    for step in (2, 4):
        whole = make_state(step)
        checkpoints.save(
            step, jax.tree.map(lambda x, s: jax.make_array_from_callback(x.shape, s, x.__getitem__), whole, sharding)
        )
    checkpoints.wait()
    processes.wait_for_all("saved")
    if process == 1:
        files = (folder / "4" / "variables" / "ocdbt.process_1" / "d").iterdir()
        file = max(files, key=lambda file: file.stat().st_size)  # the largest file holds the arrays
        file.write_bytes(file.read_bytes()[:1000])
    processes.wait_for_all("damaged")
    state = checkpoints.restore(abstract_on(make_state(0), sharding))
    expected = make_state(int(state.step)).params["kernel"]
    shards = state.params["kernel"].addressable_shards
    assert all(shard.data.shape == (2048, 64) for shard in shards)
    assert all(np.array_equal(shard.data, expected[shard.index]) for shard in shards)
    print(f"restored {int(state.step)}", flush=True)
    checkpoints.close()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
