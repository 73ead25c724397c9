"""What the chips can do that a program may be compiled for, from their makers' pages."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Chip:
    """One accelerator.

    Attributes:
      memory_bytes: of device memory.
      flops: per second at best, bfloat16.
      link_bytes: per second that it can send to its neighbours, over all links (half of the bidirectional bandwidth).
      clock_hz: of the cores; None where it is not known.
    """

    memory_bytes: float
    flops: float
    link_bytes: float
    clock_hz: float | None


# Source: the system architecture pages of Google Cloud for each TPU (2026). The clocks follow from the peak, the number of
# matrix units (four in each core) and their size (128 × 128); v6e's do not agree with its peak.
TPUS = {
    "v4": Chip(32 * 2**30, 275e12, 300e9, 1.05e9),
    "v5e": Chip(16 * 2**30, 197e12, 200e9, 1.5e9),
    "v5p": Chip(95 * 2**30, 459e12, 600e9, 1.75e9),
    "v6e": Chip(32 * 2**30, 918e12, 400e9, None),
}


@dataclasses.dataclass(frozen=True)
class Gpu:
    """One GPU of NVIDIA's, as its compiler has to know it.

    Attributes:
      chip: what it can do.
      name: as its driver has it.
      capability: its compute capability, major and minor.
      cores: streaming multiprocessors.
      clock_hz: at most.
      memory_bytes_per_s: of device memory.
      l2_bytes: of its cache.
      shared_bytes_per_core: memory that the threads of a multiprocessor share.
      shared_bytes_per_block: the most that one block of them may ask for.
    """

    chip: Chip
    name: str
    capability: tuple[int, int]
    cores: int
    clock_hz: float
    memory_bytes_per_s: float
    l2_bytes: int
    shared_bytes_per_core: int
    shared_bytes_per_block: int

    def describe(self) -> str:
        """Return it in the form that XLA takes (`GpuTargetConfigProto` as text)."""
        major, minor = self.capability
        # What all of these capabilities have in common. Source: CUDA C++ Programming Guide, technical specifications.
        return f"""
            gpu_device_info {{
              name: "{self.name}" device_vendor: "NVIDIA Corporation" device_address_bits: 64
              cuda_compute_capability {{ major: {major} minor: {minor} }}
              core_count: {self.cores} fpus_per_core: {64 if major == 8 else 128} clock_rate_ghz: {self.clock_hz / 1e9}
              device_memory_size: {int(self.chip.memory_bytes)} memory_bandwidth: {int(self.memory_bytes_per_s)}
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


# Source: NVIDIA's data sheets and architecture papers of the SXM forms. Memory is what drivers leave of 80 and 141 GB.
GPUS = {
    "a100": Gpu(
        Chip(79 * 2**30, 312e12, 300e9, None),
        "NVIDIA A100-SXM4-80GB",
        (8, 0),
        108,
        1.41e9,
        2.039e12,
        40 * 2**20,
        164 * 2**10,
        163 * 2**10,
    ),
    "h100": Gpu(
        Chip(79 * 2**30, 989e12, 450e9, None),
        "NVIDIA H100 80GB HBM3",
        (9, 0),
        132,
        1.98e9,
        3.35e12,
        50 * 2**20,
        228 * 2**10,
        227 * 2**10,
    ),
    "h200": Gpu(
        Chip(139 * 2**30, 989e12, 450e9, None),
        "NVIDIA H200",
        (9, 0),
        132,
        1.98e9,
        4.8e12,
        50 * 2**20,
        228 * 2**10,
        227 * 2**10,
    ),
}
HOP_S = 1e-6  # from a chip to its neighbour, chosen: about what is said of TPUs
EXAMPLES = "v5e:4x4, v5e:16x16, v6e:8x8, v5p:2x2x2, v4:2x2x2, h100, h100:8"
