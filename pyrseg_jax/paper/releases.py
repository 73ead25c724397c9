"""The recipes of public releases on ResNets, as values of configuration keys, each with its source.

Our schedule ends at a learning rate of 0, and images are scaled from their own size. So the releases' last learning rates, base
sizes, rotations and photometric distortions have no counterpart here. Neither have rates and decays of single kinds of parameters,
such as biases. Crops are multiples of 32 pixels.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

Keys = Mapping[str, Any]  # key without "config." → value


@dataclasses.dataclass(frozen=True)
class Release:
    """The recipe of a release.

    Attributes:
      title: the release, in words.
      source: where its numbers stand.
      network: keys of the ResNet that the release's weights were trained with.
      training: keys of the training recipe on every data set.
      by_data: name of a data set → keys that differ there.
    """

    title: str
    source: str
    network: Keys
    training: Keys
    by_data: Mapping[str, Keys] = dataclasses.field(default_factory=dict)

    def keys_for(self, data: str) -> dict[str, Any]:
        """Return the keys of the training recipe for the data set of this name."""
        return {**self.training, **self.by_data.get(data, {})}


def _network(stem: str, dilation: str, resize: str, multi_grid: tuple[int, ...] | None = None) -> dict[str, Any]:
    return {
        "model.stem": stem,
        "model.dilation": dilation,
        "model.multi_grid": multi_grid,
        "model.resize": resize,
    }


def _training(
    learning_rate: float, head_multiplier: float, weight_decay: float, steps: int | str, crop_px: int, auxiliary: float
) -> dict[str, Any]:
    return {
        "training.learning_rate": learning_rate,
        "training.head_multiplier": head_multiplier,
        "training.weight_decay": weight_decay,
        "training.steps": steps,
        "data.crop_px": crop_px,
        "data.scale_max": 2.0,
        "training.auxiliary_weight": auxiliary,
    }


def _steps(ade20k: int | str, coco_stuff10k: int | str, pascal_context: int | str) -> dict[str, Keys]:
    found = {"ade20k": ade20k, "coco_stuff10k": coco_stuff10k, "pascal_context": pascal_context}
    return {data: {"training.steps": steps} for data, steps in found.items()}


# What mmsegmentation trains its networks with on each data set. Releases without a recipe for a data set borrow its length.
STANDARD_STEPS = _steps(160_000, 40_000, 80_000)
_STANDARD_PASCAL = {
    "training.learning_rate": 0.004,
    "training.weight_decay": 1e-4,
    "training.steps": 80_000,
    "data.crop_px": 480,
}

RELEASES = {
    "mmsegmentation": Release(
        "mmsegmentation",
        "mmsegmentation 1.2.2, configs/_base_/{schedules,datasets}: SGD 0.01, decay 5e-4, 160k steps on ADE20K, 40k on COCO-Stuff "
        "10K; Pascal Context (59 classes): 0.004, decay 1e-4, 80k steps, crops of 480",
        _network("v1c", "contracted", "half_pixel"),
        _training(0.01, 1.0, 5e-4, 160_000, 512, 0.4),
        {**STANDARD_STEPS, "pascal_context": _STANDARD_PASCAL},
    ),
    "semseg": Release(
        "semseg (Zhao)",
        "hszhao/semseg, config/ade20k/ade20k_p{sp,sa}net101.yaml and tool/train.py: 0.01, ten times that outside the backbone, "
        "decay 1e-4, 100 epochs, auxiliary weight 0.4. Its crops have 473 and 465 pixels; ours have 480, which gives PSANet's mask "
        "the same size",
        _network("deep", "plain", "align_corners"),
        _training(0.01, 10.0, 1e-4, 160_000, 480, 0.4),
        STANDARD_STEPS | {"ade20k": {"training.steps": "100 epochs"}},
    ),
    "csail": Release(
        "CSAIL (semantic-segmentation-pytorch)",
        "CSAILVision/semantic-segmentation-pytorch: 0.02, decay 1e-4, 40 epochs of 5000 steps on ADE20K. It trains on whole images "
        "whose short side is 300 to 600 pixels; ours are crops of 512",
        _network("deep", "contracted", "half_pixel"),
        _training(0.02, 1.0, 1e-4, 160_000, 512, 0.0),
        STANDARD_STEPS | {"ade20k": {"training.steps": 200_000}},
    ),
    "encoding": Release(
        "PyTorch-Encoding",
        "zhanghang1989/PyTorch-Encoding, experiments/segmentation/train_dist.py: 0.01 at batch size 16, ten times that outside the "
        "backbone, decay 1e-4, 120 epochs on ADE20K, auxiliary weight 0.2, crops of 480 (576 for its ResNet-101 on ADE20K)",
        _network("deep", "contracted", "align_corners"),
        _training(0.01, 10.0, 1e-4, 160_000, 480, 0.2),
        STANDARD_STEPS | {"ade20k": {"training.steps": "120 epochs"}},
    ),
    "danet": Release(
        "DANet",
        "junfu1115/DANet: the script of PyTorch-Encoding with --multi-dilation 4 8 16 and --no-deepstem, without an auxiliary "
        "classifier. No schedule for COCO-Stuff is published",
        _network("v1", "contracted", "align_corners", (4, 8, 16)),
        _training(0.01, 10.0, 1e-4, 160_000, 480, 0.0),
        STANDARD_STEPS | {"ade20k": {"training.steps": "120 epochs"}},
    ),
    "emanet": Release(
        "EMANet",
        "XiaLiPKU/EMANet, settings.py: 0.009, decay 1e-4, crops of 513 (ours: 512), no auxiliary classifier. Its schedules are for "
        "other data sets, its running statistics move by 3e-4 a step instead of 0.1",
        _network("deep", "contracted", "align_corners", (2, 8, 16)),
        _training(0.009, 1.0, 1e-4, 160_000, 512, 0.0),
        STANDARD_STEPS,
    ),
    "openseg": Release(
        "openseg",
        "openseg-group/openseg.pytorch, configs and scripts of ADE20K (0.02, 150k steps, warm-up 1000) and COCO-Stuff (0.001, ten "
        "times that outside the backbone, 60k steps): decay 1e-4, auxiliary weight 0.4, crops of 520 (ours: 512)",
        _network("deep", "contracted", "align_corners"),
        _training(0.02, 1.0, 1e-4, 160_000, 512, 0.4) | {"training.warmup_steps": 1000},
        STANDARD_STEPS
        | {
            "ade20k": {"training.steps": 150_000},
            "coco_stuff10k": {
                "training.learning_rate": 0.001,
                "training.head_multiplier": 10.0,
                "training.steps": 60_000,
            },
        },
    ),
    "qgn": Release(
        "QGN",
        "kashyap7x/QGN, train.py: 0.02, decay 1e-4, 20 epochs of 5000 steps on ADE20K, on whole images as CSAIL's release",
        _network("deep", "contracted", "half_pixel"),
        _training(0.02, 1.0, 1e-4, 160_000, 512, 0.0),
        STANDARD_STEPS | {"ade20k": {"training.steps": 100_000}},
    ),
}
