"""What a program is compiled for: this machine's devices, or TPUs and GPUs by their names, without having any."""

import dataclasses
import math
import os
import re

import jax
from jax.experimental import topologies

from pyrseg_jax.ahead_of_time.hardware import EXAMPLES, GPUS, TPUS, Chip
from pyrseg_jax.distributed import mesh as mesh_lib
from pyrseg_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Target:
    """What is compiled for.

    Attributes:
      name: of the topology, or of this machine's devices.
      devices: of it, without there having to be any.
      chip: what each device can do, where it is known; a chip of several devices is divided among them.
      sides: of the grid that the chips stand in; empty where they do not stand in one.
      options: of the compiler.
    """

    name: str
    devices: list
    chip: Chip | None
    sides: tuple[int, ...] = ()
    options: dict[str, bool] = dataclasses.field(default_factory=dict)

    def compile(self, lowered: jax.stages.Lowered) -> jax.stages.Compiled:
        """Compile for it."""
        return lowered.compile(compiler_options=self.options or None)


def need_no_devices() -> None:
    """Have JAX register its plugins where they have no device; to be called before it looks for devices."""
    os.environ.setdefault("JAX_SKIP_CUDA_CONSTRAINTS_CHECK", "1")  # which asks a driver for its version


def find_target(topology: str | None) -> Target:
    """Look up TPUs like `v5e:4x4` or NVIDIA's GPUs like `h100` and `h100:8` by their name; None: the devices of this machine.

    Raises:
      UserError: if there is nothing of that name, or what compiles for it is not installed.
    """
    if topology is None:
        devices = jax.devices()
        return Target(mesh_lib.describe_devices(), devices, None)
    kind, _, shape = topology.partition(":")
    if kind in TPUS and re.fullmatch(r"\d+(x\d+){1,2}", shape):
        find = _find_tpus
    elif kind in GPUS and re.fullmatch(r"(?!:)|:[1-9]\d*", topology[len(kind) :]):
        find = _find_gpus
    else:
        raise UserError(
            f"--topology={topology}: expected one of {', '.join(TPUS)}, a colon and a shape, or one of {', '.join(GPUS)} and, "
            f"for several in one machine, a colon and how many, like {EXAMPLES}"
        )
    # Programs for other machines can be kept, but not read again.
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        return find(topology, kind, shape)
    except Exception as error:  # whatever the plugin raises
        reason = str(error).strip().split("\n")[0]
        for what, plugin, file, missing in PLUGINS:
            if missing in reason:
                raise UserError(
                    f"--topology={topology} needs {plugin}, which installs without {what}: pip install -r {file} ({reason})"
                ) from error
        raise UserError(f"--topology={topology}: there is no such slice ({reason}); examples: {EXAMPLES}") from error


PLUGINS = (
    ("a TPU", "libtpu", "requirements-tpu.txt", "TPU support not installed"),
    ("a GPU", "JAX's plugin for CUDA", "requirements-cuda.txt", "topology not implemented"),
)


def _find_tpus(topology: str, kind: str, shape: str) -> Target:
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # do not look for the machine that this is not
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # several may compile at once: none of them takes a TPU
    devices = list(topologies.get_topology_desc(topology, platform="tpu").devices)
    sides = tuple(map(int, shape.split("x")))
    chip, share = TPUS[kind], math.prod(sides) / len(devices)
    chip = dataclasses.replace(
        chip, memory_bytes=share * chip.memory_bytes, flops=share * chip.flops, link_bytes=share * chip.link_bytes
    )
    return Target(topology, devices, chip, sides)


def _find_gpus(topology: str, kind: str, count: str) -> Target:
    gpu = GPUS[kind]
    found = topologies.get_topology_desc(
        topology, platform="cuda", target_config=gpu.describe(), topology=f"1x1x{count or 1}"
    )
    # Without a device to try them on, Triton's products have no sizes of tiles that fit all shapes: cuBLAS takes them.
    return Target(topology, list(found.devices), gpu.chip, options={"xla_gpu_enable_triton_gemm": False})
