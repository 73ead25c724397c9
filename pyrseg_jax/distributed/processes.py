"""The processes of one run: joining them, choosing the one that writes files, and exchanging values."""

import importlib.util
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from pyrseg_jax.errors import UserError, first_line

# Device files of a machine with TPUs.
TPU_DEVICES = ("/dev/accel0", "/dev/vfio/0")


def start(
    mode: str = "auto", coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None
) -> None:
    """Join the other processes of this run, if there are any. Call this before anything uses a device.

    Args:
      mode: "auto": join if the environment describes several processes (Cloud TPU, Slurm, GKE); "on": always; "off": never.
      coordinator: HOST:PORT of process 0; None: jax finds it, and the two values below.
      num_processes: number of processes of the run.
      process_id: index of this process, from 0.

    Raises:
      UserError: if only some of the three values are given, or the other processes cannot be reached.
    """
    given = {"--coordinator": coordinator, "--num_processes": num_processes, "--process_id": process_id}
    missing = [name for name, value in given.items() if value is None]
    if 0 < len(missing) < len(given):
        raise UserError(f"{', '.join(missing)} is missing: --coordinator, --num_processes and --process_id go together")
    if missing and (mode == "off" or (mode == "auto" and not is_cluster())):
        return
    if num_processes is not None and process_id is not None and not 0 <= process_id < num_processes:
        raise UserError(
            f"--process_id={process_id}: expected 0 … {num_processes - 1}, for --num_processes={num_processes}"
        )
    try:
        jax.distributed.initialize(coordinator, num_processes, process_id)
    except (RuntimeError, ValueError) as error:
        reason = first_line(error)
        raise UserError(
            f"the processes of this run did not find each other ({reason}): describe them with --coordinator=HOST:PORT "
            "--num_processes=N --process_id=I, or start one process with --distributed=off"
        ) from error


def share(mode: str = "auto", num_processes: int | None = None, process_id: int | None = None) -> tuple[int, int]:
    """Return the index of this process and the number of processes, for work that they divide without joining.

    The numbers given come first, then those of Slurm and GKE, then those of a Cloud TPU slice.

    Args:
      mode: "off": this process does all of the work.
      num_processes: number of processes.
      process_id: index of this process, from 0.

    Raises:
      UserError: if only one of the numbers is given, or they do not fit together.
    """
    if (num_processes is None) != (process_id is None):
        missing = "num_processes" if num_processes is None else "process_id"
        raise UserError(f"--{missing} is missing: --num_processes and --process_id go together")
    if num_processes is not None and process_id is not None:
        if not 0 <= process_id < num_processes:
            raise UserError(
                f"--process_id={process_id}: expected 0 … {num_processes - 1}, for --num_processes={num_processes}"
            )
        return process_id, num_processes
    if mode == "off" or not is_cluster():
        return 0, 1
    environment = os.environ
    if "SLURM_PROCID" in environment and int(environment.get("SLURM_NTASKS", 1)) > 1:
        if "SLURM_LOCALID" in environment and os.environ.get("SLURM_NTASKS_PER_NODE", "1") != "1":
            # Each task on a node has a GPU of its own, as if the tasks had joined.
            jax.config.update("jax_cuda_visible_devices", environment["SLURM_LOCALID"])
        return int(environment["SLURM_PROCID"]), int(environment["SLURM_NTASKS"])
    hosts = environment.get("TPU_WORKER_HOSTNAMES", "")
    if "," in hosts and "TPU_WORKER_ID" in environment:
        return int(environment["TPU_WORKER_ID"]), len(hosts.split(","))
    return jax.process_index(), jax.process_count()  # the runtime of a slice knows its hosts


def is_cluster() -> bool:
    """Return whether the environment describes one of several processes, or a Cloud TPU."""
    environment = os.environ
    if (
        int(environment.get("SLURM_NTASKS", 1)) > 1
        and "SLURM_PROCID" in environment
        and "SLURM_STEP_NODELIST" in environment
    ):
        return True
    if "," in environment.get("TPU_WORKER_HOSTNAMES", ""):  # set by GKE
        return True
    has_tpu = any(Path(device).exists() for device in TPU_DEVICES) and importlib.util.find_spec("libtpu") is not None
    return has_tpu and "TPU_SKIP_MDS_QUERY" not in environment


def is_joined() -> bool:
    """Return whether `start` has initialized jax's distributed mode, in which jax catches SIGTERM."""
    return jax.distributed.is_initialized()


def count() -> int:
    """Return the number of processes of this run."""
    return jax.process_count()


def is_first() -> bool:
    """Return whether this is the process that writes files and prints."""
    return jax.process_index() == 0


def wait_for_all(name: str) -> None:
    """Wait until all processes have reached this call; `name` identifies it."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def agree_on_preemption(step: int) -> bool:
    """Return whether a process has received SIGTERM, so that all exit after this step; all must call this after each step."""
    return multihost_utils.reached_preemption_sync_point(step)


def on_first(act: Callable[[], Any]) -> None:
    """Call `act` in the first process alone; if it raises UserError there, raise the same error in every process."""
    problem = None
    if is_first():
        try:
            act()
        except UserError as error:
            problem = str(error)
    problem = gather(problem)[0]
    if problem is not None:
        raise UserError(problem)


def gather(value: Any) -> list:
    """Exchange values: return the value of every process, in the order of the processes; any type that pickles."""
    if jax.process_count() == 1:
        return [value]
    packed = np.frombuffer(pickle.dumps(value), np.uint8)
    lengths = multihost_utils.process_allgather(np.int32(packed.size)).ravel()
    padded = np.zeros(lengths.max(), np.uint8)
    padded[: packed.size] = packed
    everything = multihost_utils.process_allgather(padded)
    return [pickle.loads(row[:length].tobytes()) for row, length in zip(everything, lengths, strict=True)]
