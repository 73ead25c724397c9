"""Several processes that run one program: starting them, who writes, and sums over all of them."""

import importlib.util
import logging
import os
import pickle
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from pyrseg_jax.errors import UserError

log = logging.getLogger(__name__)

TPU_DEVICES = ("/dev/accel0", "/dev/vfio/0")


def start(
    mode: str = "auto", coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None
) -> None:
    """Join the other processes of this run, if there are any; before anything else asks for devices.

    Args:
      mode: "auto": where the environment tells of several processes (Cloud TPU, Slurm, GKE); "on": always; "off": never.
      coordinator: HOST:PORT of process 0; None, like the two below: found by jax.
      num_processes, process_id: how many there are, and which this is.

    Raises:
      UserError: if some of the three are given and others not, or the others cannot be reached.
    """
    given = {"--coordinator": coordinator, "--num_processes": num_processes, "--process_id": process_id}
    missing = [name for name, value in given.items() if value is None]
    if 0 < len(missing) < len(given):
        raise UserError(f"{', '.join(missing)} is missing: --coordinator, --num_processes and --process_id go together")
    if missing and (mode == "off" or (mode == "auto" and not is_cluster())):
        return
    if num_processes is not None and not 0 <= process_id < num_processes:
        raise UserError(
            f"--process_id={process_id}: expected 0 … {num_processes - 1}, for --num_processes={num_processes}"
        )
    try:
        jax.distributed.initialize(coordinator, num_processes, process_id)
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        raise UserError(
            f"the processes of this run did not find each other ({reason}): name them with --coordinator=HOST:PORT "
            "--num_processes=N --process_id=I, or start one process with --distributed=off"
        ) from error


def is_cluster() -> bool:
    """Tell whether the environment is that of one of several processes, or of a Cloud TPU."""
    environment = os.environ
    if (
        int(environment.get("SLURM_NTASKS", 1)) > 1
        and "SLURM_PROCID" in environment
        and "SLURM_STEP_NODELIST" in environment
    ):
        return True
    if "," in environment.get("TPU_WORKER_HOSTNAMES", ""):  # as GKE sets it
        return True
    has_tpu = any(Path(device).exists() for device in TPU_DEVICES) and importlib.util.find_spec("libtpu") is not None
    return has_tpu and "TPU_SKIP_MDS_QUERY" not in environment


def is_joined() -> bool:
    """Tell whether `start` has joined others, or begun alone what others could join: then jax notices SIGTERM."""
    return jax.distributed.is_initialized()


def count() -> int:
    """Return how many processes run this program together."""
    return jax.process_count()


def is_first() -> bool:
    """Tell whether this is the process that writes files and speaks."""
    return jax.process_index() == 0


def wait_for_all(name: str) -> None:
    """Return when all processes have come here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def agree_on_preemption(step: int) -> bool:
    """Tell whether one of the processes was sent SIGTERM, and all of them end after this step; to be asked after each."""
    return multihost_utils.reached_preemption_sync_point(step)


def gather(value: Any) -> list:
    """Return the values that all processes give, in their order, to each of them; of any type that pickles."""
    if jax.process_count() == 1:
        return [value]
    packed = np.frombuffer(pickle.dumps(value), np.uint8)
    lengths = multihost_utils.process_allgather(np.int32(packed.size)).ravel()
    padded = np.zeros(lengths.max(), np.uint8)
    padded[: packed.size] = packed
    everything = multihost_utils.process_allgather(padded)
    return [pickle.loads(row[:length].tobytes()) for row, length in zip(everything, lengths, strict=True)]
