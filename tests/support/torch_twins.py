"""HRNet and the heads of Table 1's other methods in PyTorch, from their published descriptions, with the releases' names."""

import torch
from torch import nn
from torch.nn import functional as F


def resize(x, size, convention):
    if tuple(x.shape[2:]) == tuple(size):
        return x
    if convention == "nearest":
        return F.interpolate(x, size=size, mode="nearest")
    return F.interpolate(x, size=size, mode="bilinear", align_corners=convention == "align_corners")


def conv(inputs, outputs, kernel=3, stride=1, bias=False):
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=bias)


class Residual(nn.Module):
    """Convolutions with normalization beside an identity or projection: basic (3, 3) or bottleneck (1, 3, 1) by its kernels."""

    def __init__(self, inputs, widths, kernels):
        super().__init__()
        self.count = len(widths)
        for i, (width, kernel) in enumerate(zip(widths, kernels, strict=True), 1):
            setattr(self, f"conv{i}", conv(inputs if i == 1 else widths[i - 2], width, kernel))
            setattr(self, f"bn{i}", nn.BatchNorm2d(width))
        if inputs != widths[-1]:
            self.downsample = nn.Sequential(conv(inputs, widths[-1], 1), nn.BatchNorm2d(widths[-1]))

    def forward(self, x):
        y = x
        for i in range(1, self.count + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            y = torch.relu(y) if i < self.count else y
        return torch.relu(y + (self.downsample(x) if hasattr(self, "downsample") else x))


class Exchange(nn.Module):
    def __init__(self, widths, num_blocks, convention):
        super().__init__()
        self.convention = convention
        self.branches = nn.ModuleList(
            nn.Sequential(*(Residual(w, (w, w), (3, 3)) for _ in range(num_blocks))) for w in widths
        )
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(self.path(widths, to, fro) for fro in range(len(widths))) for to in range(len(widths))
        )

    @staticmethod
    def path(widths, to, fro):
        if fro == to:
            return nn.Identity()
        if fro > to:
            return nn.Sequential(conv(widths[fro], widths[to], 1), nn.BatchNorm2d(widths[to]))
        steps = []
        for k in range(to - fro):
            is_last = k == to - fro - 1
            width = widths[to] if is_last else widths[fro]
            tail = () if is_last else (nn.ReLU(),)
            steps.append(nn.Sequential(conv(widths[fro], width, 3, 2), nn.BatchNorm2d(width), *tail))
        return nn.Sequential(*steps)

    def forward(self, maps):
        maps = [branch(x) for branch, x in zip(self.branches, maps, strict=True)]
        return [
            torch.relu(
                sum(resize(layer(x), maps[to].shape[2:], self.convention) for layer, x in zip(row, maps, strict=True))
            )
            for to, row in enumerate(self.fuse_layers)
        ]


class HRNet(nn.Module):
    """The backbone; as a stub its features are the pixels of each 4 × 4 cell."""

    def __init__(
        self, width, num_modules=(1, 4, 3), num_blocks=4, num_bottlenecks=4, convention="half_pixel", is_stub=False
    ):
        super().__init__()
        self.convention, self.is_stub = convention, is_stub
        if is_stub:
            self.width = 48
            return
        self.conv1, self.bn1 = conv(3, 64, 3, 2), nn.BatchNorm2d(64)
        self.conv2, self.bn2 = conv(64, 64, 3, 2), nn.BatchNorm2d(64)
        kernels = (1, 3, 1)
        self.layer1 = nn.Sequential(
            *(Residual(64 if k == 0 else 256, (64, 64, 256), kernels) for k in range(num_bottlenecks))
        )
        widths = [width * 2**i for i in range(4)]

        def start(inputs, outputs, stride):
            return nn.Sequential(conv(inputs, outputs, 3, stride), nn.BatchNorm2d(outputs), nn.ReLU())

        self.transition1 = nn.ModuleList([start(256, widths[0], 1), nn.Sequential(start(256, widths[1], 2))])
        for s in (2, 3):
            new = nn.Sequential(start(widths[s - 1], widths[s], 2))
            setattr(self, f"transition{s}", nn.ModuleList([*(nn.Identity() for _ in range(s)), new]))
        for s in (2, 3, 4):
            modules = (Exchange(widths[:s], num_blocks, convention) for _ in range(num_modules[s - 2]))
            setattr(self, f"stage{s}", nn.Sequential(*modules))
        self.width = sum(widths)

    def features(self, x):
        if self.is_stub:
            return F.pixel_unshuffle(x, 4)
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.bn2(self.conv2(x)))
        x = self.layer1(x)
        maps = self.stage2([t(x) for t in self.transition1])
        maps = self.stage3([*maps, self.transition2[2](maps[-1])])
        maps = self.stage4([*maps, self.transition3[3](maps[-1])])
        convention = "half_pixel" if self.convention == "nearest" else self.convention
        return torch.cat([resize(x, maps[0].shape[2:], convention) for x in maps], 1)

    def forward(self, x):
        return self.features(x)


def norm_relu(width):
    return nn.Sequential(nn.BatchNorm2d(width), nn.ReLU())


class HRNetHead(HRNet):
    """HRNet's own head, with the official names; returns (logits, None)."""

    def __init__(self, classes, width, **kwargs):
        super().__init__(width, **kwargs)
        d = self.width
        self.last_layer = nn.Sequential(
            conv(d, d, 1, bias=True), nn.BatchNorm2d(d), nn.ReLU(), conv(d, classes, 1, bias=True)
        )

    def forward(self, x):
        return self.last_layer(self.features(x)), None


class ObjectContext(nn.Module):
    def __init__(self, width, key_width):
        super().__init__()

        def project(inputs, times):
            layers = []
            for i in range(times):
                layers += [conv(inputs if i == 0 else key_width, key_width, 1), norm_relu(key_width)]
            return nn.Sequential(*layers)

        self.f_pixel, self.f_object, self.f_down = project(width, 2), project(width, 2), project(width, 1)
        self.f_up = nn.Sequential(conv(key_width, width, 1), norm_relu(width))

    def forward(self, x, regions):
        query, key, value = (
            f(y).flatten(2) for f, y in ((self.f_pixel, x), (self.f_object, regions), (self.f_down, regions))
        )
        weights = torch.softmax(query.transpose(1, 2) @ key * query.shape[1] ** -0.5, -1)
        return self.f_up((weights @ value.transpose(1, 2)).transpose(1, 2).reshape(len(x), -1, *x.shape[2:]))


class OCRHead(HRNet):
    """HRNet + OCR, with the official names; returns (logits, auxiliary logits)."""

    def __init__(self, classes, width, semantic_width, key_width, **kwargs):
        super().__init__(width, **kwargs)
        d, w = self.width, semantic_width
        self.conv3x3_ocr = nn.Sequential(conv(d, w, 3, bias=True), norm_relu(w))
        self.ocr_distri_head = nn.Module()
        self.ocr_distri_head.object_context_block = ObjectContext(w, key_width)
        self.ocr_distri_head.conv_bn_dropout = nn.Sequential(conv(2 * w, w, 1), norm_relu(w), nn.Dropout2d(0))
        self.cls_head = conv(w, classes, 1, bias=True)
        self.aux_head = nn.Sequential(conv(d, d, 1, bias=True), norm_relu(d), conv(d, classes, 1, bias=True))

    def forward(self, x):
        features = self.features(x)
        auxiliary, x = self.aux_head(features), self.conv3x3_ocr(features)
        share = torch.softmax(auxiliary.flatten(2), -1)
        regions = (x.flatten(2) @ share.transpose(1, 2))[..., None]
        context = self.ocr_distri_head.object_context_block(x, regions)
        return self.cls_head(self.ocr_distri_head.conv_bn_dropout(torch.cat([context, x], 1))), auxiliary


class Pair(nn.Module):
    def __init__(self, inputs, outputs, kernel=1):
        super().__init__()
        self.conv, self.bn = conv(inputs, outputs, kernel), nn.BatchNorm2d(outputs)

    def forward(self, x):
        return torch.relu(self.bn(self.conv(x)))


class ANL(nn.Module):
    """Asymmetric non-local attention for one map (APNB); its names are those of our module."""

    def __init__(self, features, width, key_width):
        super().__init__()
        self.reduce, self.key = Pair(features, width, 3), Pair(width, key_width)
        self.value, self.out = conv(width, key_width, 1, bias=True), conv(key_width, width, 1, bias=True)
        self.merge = Pair(2 * width, width)

    @staticmethod
    def tokens(x):
        return torch.cat([F.adaptive_avg_pool2d(x, n).flatten(2) for n in (1, 3, 6, 8)], 2)

    def forward(self, features):
        x = self.reduce(features)
        query, value = self.key(x), self.value(x)
        scores = query.flatten(2).transpose(1, 2) @ self.tokens(query) * query.shape[1] ** -0.5
        found = (torch.softmax(scores, -1) @ self.tokens(value).transpose(1, 2)).transpose(1, 2)
        return self.merge(torch.cat([self.out(found.reshape(query.shape)), x], 1))


class CrissCross(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.query, self.key = conv(width, width // 8, 1, bias=True), conv(width, width // 8, 1, bias=True)
        self.value, self.gamma = conv(width, width, 1, bias=True), nn.Parameter(torch.zeros(1))

    def forward(self, x):
        n, _, h, w = x.shape
        query, key, value = self.query(x), self.key(x), self.value(x)

        def lines(y, order):  # one batch entry per column or row
            return y.permute(*order).reshape(-1, y.shape[order[2]], y.shape[1])

        column, row = (0, 3, 2, 1), (0, 2, 3, 1)
        vertical = lines(query, column) @ lines(key, column).transpose(1, 2)
        vertical = vertical - torch.diag(torch.full((h,), float("inf")))
        horizontal = lines(query, row) @ lines(key, row).transpose(1, 2)
        vertical, horizontal = vertical.reshape(n, w, h, h).transpose(1, 2), horizontal.reshape(n, h, w, w)
        weights = torch.softmax(torch.cat([vertical, horizontal], -1), -1)
        from_column = weights[..., :h].transpose(1, 2).reshape(n * w, h, h) @ lines(value, column)
        from_row = weights[..., h:].reshape(n * h, w, w) @ lines(value, row)
        found = from_column.reshape(n, w, h, -1).permute(0, 3, 2, 1) + from_row.reshape(n, h, w, -1).permute(0, 3, 1, 2)
        return x + self.gamma * found


class CCNet(nn.Module):
    """Criss-cross attention; its names are those of our module."""

    def __init__(self, features, width, key_width):
        super().__init__()
        self.reduce, self.criss_cross, self.smooth = Pair(features, width, 3), CrissCross(width), Pair(width, width, 3)
        self.merge = Pair(features + width, width, 3)

    def forward(self, features):
        x = self.reduce(features)
        x = self.criss_cross(self.criss_cross(x))
        return self.merge(torch.cat([features, self.smooth(x)], 1))


CONTEXTS = {"anl": ANL, "ccnet": CCNet}


def halved(x, times):
    return F.avg_pool2d(x, 1 << times) if times else x


class CoarseToFine(nn.Module):
    """The paper's context module (Sec. 3.3); its names are those of our module."""

    def __init__(self, features, width, key_width, num_levels=4):
        super().__init__()
        self.num_levels = num_levels
        self.reduce = Pair(features, width)
        for level in range(1, num_levels + 1):
            attention = nn.Module()
            attention.query, attention.key = Pair(width, key_width), Pair(width, key_width)
            attention.value = conv(width, width, 1)
            setattr(self, f"attention_{level}", attention)
            setattr(self, f"aggregate_{level}", Pair(2 * width, width))
            if level < num_levels:
                setattr(self, f"aggregate_block_{level}", Residual(width, (width, width), (3, 3)))
                setattr(self, f"update_{level}", Pair(2 * width, width))

    def forward(self, features):
        finest = self.reduce(features)
        context, outputs = ANL.tokens(finest)[:, :, None], []  # (N, C, 1, S)
        for level in range(1, self.num_levels + 1):
            x, part = halved(finest, self.num_levels - level), getattr(self, f"attention_{level}")
            query, key, value = part.query(x), part.key(context)[:, :, 0], part.value(context)[:, :, 0]
            weights = torch.softmax(query.flatten(2).transpose(1, 2) @ key * query.shape[1] ** -0.5, -1)
            found = (weights @ value.transpose(1, 2)).transpose(1, 2).reshape(x.shape)
            x = getattr(self, f"aggregate_{level}")(torch.cat([found, x], 1))
            if level < self.num_levels:
                x = getattr(self, f"aggregate_block_{level}")(x)
                joined = torch.cat([ANL.tokens(x)[:, :, None], context], 1)
                context = getattr(self, f"update_{level}")(joined)
            outputs.append(x)
        return outputs


class PyramidNetwork(nn.Module):
    """HRNet, coarse-to-fine context and the heads of both pyramids; returns (semantic logits, unity logits), coarse → fine."""

    def __init__(self, classes, width, semantic_width, key_width, unity_width, num_levels=4, **kwargs):
        super().__init__()
        self.backbone = HRNet(width, **kwargs)
        d, w = self.backbone.width, semantic_width
        self.context = CoarseToFine(d, w, key_width, num_levels)
        self.semantic_head, self.unity_head = nn.Module(), nn.Module()
        for level in range(1, num_levels + 1):
            setattr(self.semantic_head, f"project_{level}", Pair(w, w))
            setattr(self.semantic_head, f"classify_{level}", conv(w, classes, 1, bias=True))
        self.unity_head.reduce = Pair(d, unity_width)
        for level in range(1, num_levels):
            cell = 1 << (num_levels - level)
            setattr(self.unity_head, f"unity_{level}", nn.Conv2d(unity_width, 1, cell, cell))

    def forward(self, x):
        features = self.backbone(x)
        semantic = [
            getattr(self.semantic_head, f"classify_{level}")(getattr(self.semantic_head, f"project_{level}")(y))
            for level, y in enumerate(self.context(features), 1)
        ]
        reduced = self.unity_head.reduce(features)
        unity = [getattr(self.unity_head, f"unity_{level}")(reduced)[:, 0] for level in range(1, len(semantic))]
        return semantic, unity
