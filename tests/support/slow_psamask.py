"""PSANet's mask operator in plain PyTorch, for mmsegmentation's PSANet, whose own is compiled code."""

import torch


class SlowPSAMask(torch.nn.Module):
    """Bring scores by offset (N, m·m, h, w) to scores by position (N, h·w sources, h, w targets), one offset after the other.

    Attributes:
      kind: "collect": the score of an offset at p is what the target p reads from p + offset; "distribute": what the source p
        gives to p + offset.
      window: rows and columns of the window; the middle one of an even number is the earlier of both.
    """

    def __init__(self, kind, window):
        super().__init__()
        self.kind, self.window = kind, window

    def forward(self, scores):
        n, _, h, w = scores.shape
        rows, columns = self.window
        found = scores.new_zeros(n, h * w, h * w)  # source, target
        for i, j in ((i, j) for i in range(h) for j in range(w)):
            for a, b in ((a, b) for a in range(rows) for b in range(columns)):
                y, x = i + a - (rows - 1) // 2, j + b - (columns - 1) // 2
                if 0 <= y < h and 0 <= x < w:
                    here, there = i * w + j, y * w + x
                    source, target = (there, here) if self.kind == "collect" else (here, there)
                    found[:, source, target] = scores[:, a * columns + b, i, j]
        return found.view(n, h * w, h, w)
