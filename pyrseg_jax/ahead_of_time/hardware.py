"""The accelerators that a program can be compiled for, with figures from their makers."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Accelerator:
    """Memory and speed of one accelerator.

    Attributes:
      memory_bytes: size of its memory.
      memory_bytes_per_s: bandwidth of its memory.
      flops_per_s: peak rate in bfloat16.
      link_bytes_per_s: rate at which it can send to its neighbors over all links together (half of the bidirectional
        bandwidth).
      clock_hz: clock rate of its cores; None where it is not known.
    """

    memory_bytes: float
    memory_bytes_per_s: float
    flops_per_s: float
    link_bytes_per_s: float
    clock_hz: float | None


# Source: Google Cloud's system architecture page of each TPU (2026). The clock rates follow from the peak rate, the number of
# matrix units (four per core) and their size (128 × 128). For v6e these figures contradict its peak rate, so it has none.
TPUS = {
    "v4": Accelerator(32 * 2**30, 1228e9, 275e12, 300e9, 1.05e9),
    "v5e": Accelerator(16 * 2**30, 819e9, 197e12, 200e9, 1.5e9),
    "v5p": Accelerator(95 * 2**30, 2765e9, 459e12, 600e9, 1.75e9),
    "v6e": Accelerator(32 * 2**30, 1640e9, 918e12, 400e9, None),
}


@dataclasses.dataclass(frozen=True)
class Gpu:
    """An NVIDIA GPU with everything that XLA's GPU compiler asks about it.

    Attributes:
      accelerator: memory and speed of the device.
      name: the name that the driver reports.
      capability: the compute capability, (major, minor).
      cores: number of streaming multiprocessors.
      clock_hz: maximum clock rate.
      l2_bytes: size of its L2 cache.
      shared_bytes_per_core: shared memory of a multiprocessor.
      shared_bytes_per_block: the most shared memory that one block of threads may ask for.
    """

    accelerator: Accelerator
    name: str
    capability: tuple[int, int]
    cores: int
    clock_hz: float
    l2_bytes: int
    shared_bytes_per_core: int
    shared_bytes_per_block: int

    def describe(self) -> str:
        """Return the description that XLA reads: a `GpuTargetConfigProto` in text form."""
        major, minor = self.capability
        # The limits below are the same for all compute capabilities from 8.0 to 9.0.
        # Source: CUDA C++ Programming Guide, technical specifications per compute capability.
        return f"""
            gpu_device_info {{
              name: "{self.name}" device_vendor: "NVIDIA Corporation" device_address_bits: 64
              cuda_compute_capability {{ major: {major} minor: {minor} }}
              core_count: {self.cores} fpus_per_core: {64 if major == 8 else 128} clock_rate_ghz: {self.clock_hz / 1e9}
              device_memory_size: {int(self.accelerator.memory_bytes)} memory_bandwidth: {int(self.accelerator.memory_bytes_per_s)}
              l2_cache_size: {self.l2_bytes}
              shared_memory_per_core: {self.shared_bytes_per_core} shared_memory_per_block: {48 * 2**10}
              shared_memory_per_block_optin: {self.shared_bytes_per_block}
              threads_per_warp: 32 threads_per_block_limit: 1024 threads_per_core_limit: 2048
              registers_per_core_limit: 65536 registers_per_block_limit: 65536
              thread_dim_limit_x: 1024 thread_dim_limit_y: 1024 thread_dim_limit_z: 64
              block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
              driver_version: "12.8.0" runtime_version: "12.8.0" compile_time_toolkit_version: "12.8.0" dnn_version: "9.10.0"
            }}
            platform_name: "CUDA"
            dnn_version_info {{ major: 9 minor: 10 patch: 0 }}
            device_description_str: "{self.name}"
        """


# Source: NVIDIA's data sheets and architecture papers for the SXM versions. The memory sizes are what the driver leaves of the
# nominal 80 and 141 GB.
GPUS = {
    "a100": Gpu(
        accelerator=Accelerator(79 * 2**30, 2.039e12, 312e12, 300e9, None),
        name="NVIDIA A100-SXM4-80GB",
        capability=(8, 0),
        cores=108,
        clock_hz=1.41e9,
        l2_bytes=40 * 2**20,
        shared_bytes_per_core=164 * 2**10,
        shared_bytes_per_block=163 * 2**10,
    ),
    "h100": Gpu(
        accelerator=Accelerator(79 * 2**30, 3.35e12, 989e12, 450e9, None),
        name="NVIDIA H100 80GB HBM3",
        capability=(9, 0),
        cores=132,
        clock_hz=1.98e9,
        l2_bytes=50 * 2**20,
        shared_bytes_per_core=228 * 2**10,
        shared_bytes_per_block=227 * 2**10,
    ),
    "h200": Gpu(
        accelerator=Accelerator(139 * 2**30, 4.8e12, 989e12, 450e9, None),
        name="NVIDIA H200",
        capability=(9, 0),
        cores=132,
        clock_hz=1.98e9,
        l2_bytes=50 * 2**20,
        shared_bytes_per_core=228 * 2**10,
        shared_bytes_per_block=227 * 2**10,
    ),
}
# Chosen: latency from an accelerator to its neighbor, in seconds; about what is reported for TPUs.
HOP_S = 1e-6
EXAMPLES = "v5e:4x4, v5e:16x16, v6e:8x8, v5p:2x2x2, v4:2x2x2, h100, h100:8"
