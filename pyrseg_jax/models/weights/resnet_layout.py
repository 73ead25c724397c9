"""Names of the arrays of a ResNet in the files of each publisher.

The publishers agree on the names of the blocks, `layer3.5.conv2`, and differ in those of the stem.

Source: the files of torchvision, open-mmlab (`resnet101_v1c`), PyTorch-Encoding (`resnet101s`, also used by DANet), CSAIL
  (`resnet101-imagenet`, also used by CCNet and QGN), EMANet, openseg and semseg.
"""

import re
from collections.abc import Callable, Mapping, Sequence

from pyrseg_jax.errors import UserError
from pyrseg_jax.models.weights.ccnet import CCNET, CCNET_AUXILIARY
from pyrseg_jax.models.weights.csail import CSAIL
from pyrseg_jax.models.weights.danet import DANET
from pyrseg_jax.models.weights.emanet import EMANET
from pyrseg_jax.models.weights.encoding import PYTORCH_ENCODING
from pyrseg_jax.models.weights.head import KINDS, Head, Path
from pyrseg_jax.models.weights.image_input import BGR_255, ImageInput
from pyrseg_jax.models.weights.importer import Importer
from pyrseg_jax.models.weights.mmseg_attention import MMSEG_ATTENTION
from pyrseg_jax.models.weights.mmseg_encoding import MMSEG_ENCODING
from pyrseg_jax.models.weights.mmseg_points import MMSEG_POINTS
from pyrseg_jax.models.weights.mmseg_pooling import MMSEG_POOLING
from pyrseg_jax.models.weights.openseg import OPENSEG
from pyrseg_jax.models.weights.qgn import QGN
from pyrseg_jax.models.weights.semseg import SEMSEG

# ImageNet's classifier.
IGNORED = ("fc.",)

Layer = tuple[str, str]  # published names of a convolution and of the normalization that follows

_BLOCK = re.compile(r"layer(\d)_block_(\d+)/(conv\d|bn\d|downsample/conv|downsample/bn)")
_STEM = re.compile(r"stem(\d)/(conv|bn)")
_DOWNSAMPLE = {"downsample/conv": "downsample.0", "downsample/bn": "downsample.1"}


def _layout(
    family: str,
    stem: Sequence[Layer],
    marker: str | None = None,
    stage: Callable[[int], str] = "layer{}".format,
    heads: tuple[Head, ...] = (),
    ignored: tuple[str, ...] = (),
    given: ImageInput | None = None,
) -> Importer:
    """Build the importer of one publisher's files.

    Args:
      family: the publisher's network, in words.
      stem: the published names of the stem's layers.
      marker: a kernel of the stem that only these files have; by default the first.
      stage: number of a stage → its published name.
      heads: the publisher's heads.
      ignored: prefixes of more parts that our networks do not have.
      given: the publisher's input; None: our own.
    """

    def name_of(path: Path) -> str:
        module = "/".join(path[1:-1])
        if match := _BLOCK.fullmatch(module):
            layer = _DOWNSAMPLE.get(match[3], match[3])
            return f"{stage(int(match[1]))}.{match[2]}.{layer}.{KINDS[path[-1]]}"
        match = _STEM.fullmatch(module)
        if match is None:
            raise UserError(f"{module} has no published name: it does not belong to a ResNet")
        if int(match[1]) > len(stem):
            raise UserError(
                f"the weights are of a {family}, whose stem has {len(stem)} convolution: set stem='v1', or choose a file of a "
                "network with three"
            )
        return f"{stem[int(match[1]) - 1][match[2] == 'bn']}.{KINDS[path[-1]]}"

    kernel = f"{marker or stem[0][0]}.weight"

    def member(shapes: Mapping[str, tuple[int, ...]]) -> str:
        outputs, _, rows, columns = shapes[kernel]
        return f"a ResNet whose stem has {outputs} channels in a kernel of {rows} × {columns}"

    return Importer(family, kernel, member, name_of, (*IGNORED, *ignored), heads, given)


# In the order of recognition: torchvision's marker is in CSAIL's files, too.
RESNET_IMPORTERS = (
    _layout(
        "ResNet (CSAIL)",
        (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3")),
        marker="conv3",
        heads=(*CSAIL, QGN, CCNET),
        ignored=CCNET_AUXILIARY,
    ),
    _layout(
        "ResNet (openseg)",
        (("resinit.conv1", "resinit.bn1"), ("resinit.conv2", "resinit.bn2"), ("resinit.conv3", "resinit.bn3")),
        marker="resinit.conv3",
        heads=(OPENSEG,),
        given=BGR_255,
    ),
    _layout(
        "ResNet (PyTorch-Encoding)",
        (("conv1.0", "conv1.1"), ("conv1.3", "conv1.4"), ("conv1.6", "bn1")),
        heads=(*PYTORCH_ENCODING, DANET),
    ),
    _layout(
        "ResNet (open-mmlab)",
        (("stem.0", "stem.1"), ("stem.3", "stem.4"), ("stem.6", "stem.7")),
        heads=(*MMSEG_ATTENTION, *MMSEG_POOLING, *MMSEG_ENCODING, *MMSEG_POINTS),
    ),
    _layout(
        "ResNet (semseg)",
        (("layer0.0", "layer0.1"), ("layer0.3", "layer0.4"), ("layer0.6", "layer0.7")),
        heads=SEMSEG,
    ),
    _layout(
        "ResNet (EMANet)",
        (("extractor.0.0", "extractor.0.1"), ("extractor.0.3", "extractor.0.4"), ("extractor.0.6", "extractor.1")),
        stage=lambda number: f"extractor.{number + 3}",
        heads=(EMANET,),
    ),
    _layout("ResNet (torchvision)", (("conv1", "bn1"),), heads=(DANET,)),
)
