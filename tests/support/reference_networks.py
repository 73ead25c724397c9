"""Networks of torchvision, timm, transformers and mmsegmentation as references for ours.

Only those parts of these packages run that need no compiled operators.

None of them is a dependency of the project. `requirements-parity.txt` lists PyTorch and timm; the references here also need

    pip install transformers addict yapf rich termcolor prettytable ftfy regex
    pip install --no-deps torchvision mmsegmentation==1.2.2 mmengine mmcv-lite==2.2.0

Tests that use them are skipped, with a message, where they are not installed.
"""

import importlib.util
import subprocess
import sys
import types
import warnings

import numpy as np
import pytest

# Operators that torchvision declares in a compiled library, which does not fit PyTorch's CPU build. No network here calls them.
_TORCHVISION_OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "roi_align(Tensor input, Tensor rois, float spatial_scale, int pooled_height, int pooled_width, int sampling_ratio, "
    "bool aligned) -> Tensor",
    "roi_pool(Tensor input, Tensor rois, float spatial_scale, int pooled_height, int pooled_width) -> (Tensor, Tensor)",
    "ps_roi_align(Tensor input, Tensor rois, float spatial_scale, int pooled_height, int pooled_width, int sampling_ratio) "
    "-> (Tensor, Tensor)",
    "ps_roi_pool(Tensor input, Tensor rois, float spatial_scale, int pooled_height, int pooled_width) -> (Tensor, Tensor)",
    "deform_conv2d(Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias, int stride_h, int stride_w, int pad_h, "
    "int pad_w, int dilation_h, int dilation_w, int groups, int offset_groups, bool use_mask) -> Tensor",
    "_roi_align_backward(Tensor grad) -> Tensor",
    "_roi_pool_backward(Tensor grad) -> Tensor",
    "_ps_roi_align_backward(Tensor grad) -> Tensor",
    "_ps_roi_pool_backward(Tensor grad) -> Tensor",
)
_libraries = []  # PyTorch forgets operators whose library object is gone


def require(*packages: str) -> None:
    """Skip the calling test if a package is not installed."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: tests/support/reference_networks.py says how to install it")


def torchvision_models():
    """Import `torchvision.models`, without torchvision's compiled operators where they do not fit the installed PyTorch."""
    require("torch", "torchvision")
    import torch

    # A separate process tries it first: half an import could not be taken back, and operators cannot be registered twice.
    plain = [sys.executable, "-c", "import torchvision.models"]
    if "torchvision" not in sys.modules and subprocess.run(plain, capture_output=True).returncode:
        library = torch.library.Library("torchvision", "DEF")
        for operator in _TORCHVISION_OPERATORS:
            library.define(operator)
        _libraries.append(library)
        register = torch.library.register_fake

        def register_others(name, *args, **kwargs):
            if isinstance(name, str) and name.startswith("torchvision::"):
                return lambda function: function
            return register(name, *args, **kwargs)

        torch.library.register_fake = register_others
        try:
            import torchvision.models  # noqa: F401
        finally:
            torch.library.register_fake = register
    import torchvision.models

    return torchvision.models


def timm_models():
    """Import timm, which needs torchvision, without torchvision's compiled operators."""
    require("timm")
    torchvision_models()
    import timm

    return timm


def transformers_models():
    """Import transformers, without torchvision's compiled operators if torchvision is there."""
    require("torch", "transformers")
    if importlib.util.find_spec("torchvision") is not None:
        torchvision_models()
    import transformers

    return transformers


def mmseg_models():
    """Import mmsegmentation's registry of networks, with empty classes for the compiled operators of mmcv."""
    require("torch", "torchvision", "mmseg", "mmengine", "mmcv")
    torchvision_models()
    import mmcv

    mmcv.__version__ = "2.1.0"  # mmsegmentation refuses later versions; the parts that run here have not changed
    if "mmcv.ops" not in sys.modules:
        import torch

        operators = types.ModuleType("mmcv.ops")
        for name in (
            "CrissCrossAttention",
            "PSAMask",
            "MultiScaleDeformableAttention",
            "DeformConv2d",
            "ModulatedDeformConv2d",
        ):
            setattr(operators, name, type(name, (torch.nn.Module,), {}))
        operators.sigmoid_focal_loss = None
        operators.point_sample = point_sample
        sys.modules["mmcv.ops"] = operators
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mmseg.registry import MODELS
        from mmseg.utils import register_all_modules

        register_all_modules()
    return MODELS


def point_sample(maps, points, **options):
    """Read maps (N, C, h, w) at points (N, P, 2) in 0 … 1 (x, y), bilinearly: mmcv's operator, by PyTorch's `grid_sample`."""
    import torch

    return torch.nn.functional.grid_sample(maps, (2 * points - 1)[:, :, None], **options)[..., 0]


def randomize(network, seed: int = 0):
    """Draw all weights and running statistics of a PyTorch network, and put it into evaluation mode.

    The scales keep activations near 1 through any depth, so that a relative error means the same everywhere.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if not tensor.is_floating_point():
                continue  # a counter, or an index that the network computes
            noise = torch.randn(tensor.shape, generator=generator)
            if name.endswith("running_var"):
                tensor.copy_(0.8 + 0.4 * noise.sigmoid())
            elif tensor.ndim >= 2:
                tensor.copy_(noise * np.sqrt(2 / tensor[0].numel()))
            elif name.endswith("weight"):
                tensor.copy_(0.6 + 0.1 * noise)
            else:
                tensor.copy_(0.1 * noise)
    network.eval()  # mmsegmentation's networks return None here
    return network
