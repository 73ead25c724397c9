"""CCNet's criss-cross attention in plain PyTorch, for mmsegmentation's CCNet, whose own operator is compiled code."""

import torch


class SlowCrissCross(torch.nn.Module):
    """Criss-cross attention by the names of mmcv's module: a softmax over each row and column."""

    def __init__(self, channels: int):
        super().__init__()
        from mmcv.cnn import Scale

        self.query_conv, self.key_conv = (torch.nn.Conv2d(channels, channels // 8, 1) for _ in range(2))
        self.value_conv, self.gamma = torch.nn.Conv2d(channels, channels, 1), Scale(0)

    def forward(self, x):
        query, key, value = self.query_conv(x), self.key_conv(x), self.value_conv(x)
        _, _, height, width = x.shape
        rows = []
        for i in range(height):
            row = []
            for j in range(width):
                others = [k for k in range(height) if k != i]
                keys, values = (torch.cat([y[:, :, others, j], y[:, :, i]], dim=2) for y in (key, value))
                weights = torch.einsum("nc,ncp->np", query[:, :, i, j], keys).softmax(dim=1)
                row.append(torch.einsum("np,ncp->nc", weights, values))
            rows.append(torch.stack(row, dim=2))
        return x + self.gamma(torch.stack(rows, dim=2))
