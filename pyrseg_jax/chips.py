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
HOP_S = 1e-6  # from a chip to its neighbour, chosen: about what is said of TPUs
EXAMPLES = "v5e:4x4, v5e:16x16, v6e:8x8, v5p:2x2x2, v4:2x2x2"
