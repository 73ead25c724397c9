"""What the chips can do that a program may be compiled for, from their makers' pages."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Chip:
    """One accelerator.

    Attributes:
      memory_bytes: of device memory.
      flops: per second at best, bfloat16.
      link_bytes: per second that it can send to its neighbours, over all links (half of the bidirectional bandwidth).
    """

    memory_bytes: float
    flops: float
    link_bytes: float


# Source: the system architecture pages of Google Cloud for each TPU (2026).
TPUS = {
    "v4": Chip(32 * 2**30, 275e12, 300e9),
    "v5e": Chip(16 * 2**30, 197e12, 200e9),
    "v5p": Chip(95 * 2**30, 459e12, 600e9),
    "v6e": Chip(32 * 2**30, 918e12, 400e9),
}
EXAMPLES = "v5e:4x4, v5e:16x16, v6e:8x8, v5p:2x2x2, v4:2x2x2"
