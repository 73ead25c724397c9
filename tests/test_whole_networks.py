"""Whole networks of mmsegmentation's own configs: from a checkpoint file through our importer to equal logits."""

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="PyTorch is only needed to compare with it: pip install torch")

import jax  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from flax.traverse_util import flatten_dict, unflatten_dict  # noqa: E402
from support.mmseg_heads import channels_first, far  # noqa: E402
from support.reference_networks import mmseg_models, randomize  # noqa: E402
from support.slow_criss_cross import SlowCrissCross  # noqa: E402
from support.slow_psamask import SlowPSAMask  # noqa: E402

from pyrseg_jax.models.backbones import BACKBONES  # noqa: E402
from pyrseg_jax.models.initial import abstract_variables  # noqa: E402
from pyrseg_jax.models.weights.files import read_weights  # noqa: E402
from pyrseg_jax.models.weights.importer import import_weights  # noqa: E402
from pyrseg_jax.run import config as config_lib  # noqa: E402
from pyrseg_jax.run import config_file, experiment  # noqa: E402

CLASSES = 150
HEIGHT, WIDTH = 96, 128
# Word of the method → mmsegmentation's config, for ADE20K where there is one.
ADE20K = "{0}/{1}_4xb4-160k_ade20k-512x512.py"
CONFIGS = {
    "fcn": ADE20K.format("fcn", "fcn_r50-d8"),
    "pspnet": ADE20K.format("pspnet", "pspnet_r50-d8"),
    "deeplabv3plus": ADE20K.format("deeplabv3plus", "deeplabv3plus_r50-d8"),
    "upernet": ADE20K.format("upernet", "upernet_r50"),
    "nonlocal": ADE20K.format("nonlocal_net", "nonlocal_r50-d8"),
    "encnet": ADE20K.format("encnet", "encnet_r50-d8"),
    "psanet": ADE20K.format("psanet", "psanet_r50-d8"),
    "danet": ADE20K.format("danet", "danet_r50-d8"),
    "emanet": "emanet/emanet_r50-d8_4xb2-80k_cityscapes-512x1024.py",
    "apcnet": ADE20K.format("apcnet", "apcnet_r50-d8"),
    "ccnet": ADE20K.format("ccnet", "ccnet_r50-d8"),
    "ann": ADE20K.format("ann", "ann_r50-d8"),
    "ocr": "_base_/models/ocrnet_r50-d8.py",
    "pointrend": ADE20K.format("point_rend", "pointrend_r50"),
}


def build_theirs(name: str, monkeypatch):
    """Return mmsegmentation's network of a config, with random weights and statistics."""
    models = mmseg_models()
    import mmseg
    from mmengine.config import Config
    from mmseg.models.decode_heads import cc_head, psa_head

    monkeypatch.setattr(cc_head, "CrissCrossAttention", SlowCrissCross)
    monkeypatch.setattr(psa_head, "PSAMask", SlowPSAMask)
    config = Config.fromfile(Path(mmseg.__file__).parent / ".mim/configs" / name).model
    config.pretrained = None
    heads = config.decode_head if isinstance(config.decode_head, list) else [config.decode_head]
    for part in (config.backbone, *heads, config.get("auxiliary_head") or {}):
        if "norm_cfg" in part:
            part["norm_cfg"] = {"type": "BN"}  # of one process; the names in a file are the same
        if "num_classes" in part:
            part["num_classes"] = CLASSES
    return randomize(models.build(config), seed=3)


def logits_of(network, images: np.ndarray) -> dict[str, np.ndarray]:
    """Return the logits of mmsegmentation's network, (N, C, h, w), as its program predicts; "auxiliary": for training."""
    with torch.no_grad():
        maps = network.extract_feat(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
        if not isinstance(network.decode_head, torch.nn.ModuleList):
            found = {"semantic": network.decode_head(maps), "auxiliary": network.auxiliary_head(maps)}
        else:
            coarse, last = network.decode_head
            first = coarse(maps)
            if hasattr(last, "fcs"):  # PointRend
                metas = [{"img_shape": images.shape[1:3]}] * len(images)
                found = {"semantic": last.predict(maps, first, metas, network.test_cfg)}
            else:
                found = {"semantic": last(maps, first), "auxiliary": first}
    found = {name: logits[0] if isinstance(logits, tuple | list) else logits for name, logits in found.items()}
    return {name: logits.numpy() for name, logits in found.items()}


def save_as_checkpoint(network, path: Path) -> None:
    """Write a network as mmsegmentation's program does: weights beside a description of the run."""
    meta = {
        "mmseg_version": "0.11.0",
        "config": "model = dict(…)",
        "CLASSES": ("wall", "building"),
        "PALETTE": [[120, 120, 120], [180, 120, 120]],
        "epoch": 127,
        "iter": 160_000,
        "hook_msgs": {},
    }
    torch.save({"meta": meta, "state_dict": network.state_dict()}, path)


@pytest.mark.slow
@pytest.mark.parametrize("word", CONFIGS)
def test_checkpoints_of_mmsegmentation_give_its_logits(word, tmp_path, monkeypatch):
    """With the words that the documentation names, at full width: all arrays are taken, none is missing, and no option differs."""
    theirs = build_theirs(CONFIGS[word], monkeypatch)
    path = tmp_path / "iter_160000.pth"
    save_as_checkpoint(theirs, path)
    config = config_file.load(config_file.find(f"ade20k:resnet50,{word},mmsegmentation"))
    config.model.dtype = "float32"
    config = config_lib.resolve(config)
    model = experiment.make_model(config, CLASSES)
    abstract = abstract_variables(model)
    found = import_weights(read_weights(path).state_dict, abstract, BACKBONES[config.model.backbone].importers)
    path.unlink()
    assert not found.left
    assert not found.converted
    assert set(found.variables) == set(flatten_dict(abstract))
    for option, value in found.trained.items():
        assert getattr(model.backbone, option, getattr(config.model, option)) == value
    images = np.random.default_rng(0).normal(size=(1, HEIGHT, WIDTH, 3)).astype(np.float32)
    expected = logits_of(theirs, images)
    ours = jax.jit(model.apply)(unflatten_dict(found.variables), images)
    logits = {"semantic": ours.semantic[-1], "auxiliary": ours.auxiliary}
    distances = {name: far(channels_first(np.asarray(logits[name])), expected[name]) for name in expected}
    print(f"{word}: {', '.join(f'{name} {distance:.1e}' for name, distance in distances.items())}")
    assert max(distances.values()) < 1e-5
