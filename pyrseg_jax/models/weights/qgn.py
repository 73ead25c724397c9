"""Published names of the layers of QGN's decoder in its dense variant "resnet34".

Source: the release of Chitta et al. 2020. It keeps encoder and decoder in two files, and the encoder has CSAIL's names.
"""

from pyrseg_jax.models.weights.head import Head
from pyrseg_jax.models.weights.heads import CONTEXT
from pyrseg_jax.models.weights.image_input import BGR_255

DECODER = "orig_resnet"
# Stride of the result → number of the blocks in the release, and their count.
_ROWS = {16: ("deconv1", 6), 8: ("deconv2", 4), 4: ("deconv3", 3), 2: ("deconv4", 3)}
_SKIPS = {32: "skip4", 16: "skip3", 8: "skip2", 4: "skip1", 2: "skip0"}
_CLASSIFIERS = {32: "out6_conv", 16: "out5_conv", 8: "out4_conv", 4: "out3_conv", 2: "out2_conv"}
_NUM_LAST = 3


def _names() -> dict[str, tuple[str, str | None]]:
    names: dict[str, tuple[str, str | None]] = {}

    def add_block(ours: str, theirs: str) -> None:
        for layer in ("conv1", "bn1", "conv2", "bn2"):
            names[f"{ours}/{layer}"] = (f"{theirs}.{layer}", None)

    for stride, (row, count) in _ROWS.items():
        for k in range(count):
            add_block(f"up_{stride}_block_{k}", f"{row}.{k}")
        names[f"up_{stride}_block_{count - 1}/upsample"] = (
            f"{row}.{count - 1}.upsample.0",
            f"{row}.{count - 1}.upsample.1",
        )
    for k in range(_NUM_LAST):
        add_block(f"last_block_{k}", f"final_conv.{k}")
    names |= {f"skip_{stride}": (f"{skip}.0", f"{skip}.1") for stride, skip in _SKIPS.items()}
    names |= {f"classify_{stride}": (layer, None) for stride, layer in _CLASSIFIERS.items()}
    names["finest"] = ("final_deconv", None)
    return {
        f"{CONTEXT}/{ours}": (f"{DECODER}.{convolution}", None if norm is None else f"{DECODER}.{norm}")
        for ours, (convolution, norm) in names.items()
    }


QGN = Head("QGN, dense", f"{DECODER}.final_deconv.weight", _names(), trained={"output_stride": 32}, input=BGR_255)
