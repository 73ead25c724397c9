"""Find the devices to compile for: those of this machine, or TPUs and GPUs by name, which do not have to be present."""

import dataclasses
import math
import os
import re

import jax
from jax.experimental import topologies

from pyrseg_jax.ahead_of_time.hardware import EXAMPLES, GPUS, TPUS, Accelerator
from pyrseg_jax.distributed import mesh as mesh_lib
from pyrseg_jax.errors import UserError, first_line


@dataclasses.dataclass(frozen=True)
class Target:
    """The devices that a program is compiled for.

    Attributes:
      name: the topology, or a description of this machine's devices.
      devices: the devices, which do not have to be present.
      accelerator: memory and speed of each device; None if unknown. Devices that share a TPU chip get equal shares of it.
      sides: number of TPU chips along each side of their grid; empty for other devices.
      options: compiler options.
    """

    name: str
    devices: list
    accelerator: Accelerator | None
    sides: tuple[int, ...] = ()
    options: dict[str, str | bool] = dataclasses.field(default_factory=dict)

    def compile(self, lowered: jax.stages.Lowered) -> jax.stages.Compiled:
        """Compile a program that was lowered for these devices."""
        return lowered.compile(compiler_options=self.options or None)


def need_no_devices() -> None:
    """Let JAX register its plugins on a machine without their devices. Call this before JAX looks for devices."""
    # The check that this skips needs a GPU driver.
    os.environ.setdefault("JAX_SKIP_CUDA_CONSTRAINTS_CHECK", "1")


def find_target(topology: str | None) -> Target:
    """Find the devices to compile for.

    Args:
      topology: TPUs like `v5e:4x4`, or NVIDIA GPUs like `h100` and `h100:8`; None uses the devices of this machine.

    Raises:
      UserError: if there is no such topology, or the compiler for it is not installed.
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
            f"--topology={topology}: expected a TPU ({', '.join(TPUS)}) with a colon and a shape, or a GPU "
            f"({', '.join(GPUS)}), followed by a colon and a number if there are several; for example {EXAMPLES}"
        )
    # The cache can store programs for other machines, but JAX cannot read them again without the devices.
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        return find(topology, kind, shape)
    except Exception as error:  # the plugins raise errors of many types
        reason = first_line(error)
        for device, plugin, file, missing in PLUGINS:
            if missing in reason:
                raise UserError(
                    f"--topology={topology} needs {plugin}, which can be installed without {device}: "
                    f"pip install -r {file} ({reason})"
                ) from error
        raise UserError(f"--topology={topology}: there is no such topology ({reason}); examples: {EXAMPLES}") from error


# The device, the plugin that compiles for it, the requirements file that installs it, and the error if it is missing.
PLUGINS = (
    ("a TPU", "libtpu", "requirements-tpu.txt", "TPU support not installed"),
    ("a GPU", "JAX's plugin for CUDA", "requirements-cuda.txt", "topology not implemented"),
)


def _find_tpus(topology: str, kind: str, shape: str) -> Target:
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # this machine is not a TPU VM: do not query the metadata server
    # No TPU is in use, so several processes may load libtpu at once.
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    devices = list(topologies.get_topology_desc(topology, platform="tpu").devices)
    sides = tuple(map(int, shape.split("x")))
    chip, share = TPUS[kind], math.prod(sides) / len(devices)  # a chip can have several devices
    accelerator = dataclasses.replace(
        chip,
        memory_bytes=share * chip.memory_bytes,
        memory_bytes_per_s=share * chip.memory_bytes_per_s,
        flops_per_s=share * chip.flops_per_s,
        link_bytes_per_s=share * chip.link_bytes_per_s,
    )
    return Target(topology, devices, accelerator, sides)


def _find_gpus(topology: str, kind: str, count: str) -> Target:
    gpu = GPUS[kind]
    found = topologies.get_topology_desc(
        topology, platform="cuda", target_config=gpu.describe(), topology=f"1x1x{count or 1}"
    )
    # Triton chooses the tile sizes of matrix products by trying them on a device, which is not present; cuBLAS does not need one.
    return Target(topology, list(found.devices), gpu.accelerator, options={"xla_gpu_enable_triton_gemm": False})
