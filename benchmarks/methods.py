"""Count parameters and multiply-adds of every method of Table 1, from the shapes of the networks alone.

    python benchmarks/methods.py [--methods=pspnet,danet] [--json=FILE]

Each method is counted as its word of `configs/ade20k.py` (150 classes) and `configs/coco_stuff10k.py` (171 classes) builds it,
on a ResNet-101 (with the recipe of its release, and with mmsegmentation's) and on an HRNet-W48. The head is everything but the
backbone and the auxiliary classifier. Multiply-adds are in billions, for one image of 512 × 512 pixels at inference: those of
the head's convolutions, those of all its matrix products, and half the floating-point operations that XLA counts in the
lowered program of head and auxiliary classifier. XLA counts additions and normalization as well, leaves out what falls on the
padding around a map, and counts the body of a loop once, so its count is a check of the size only. "Other count" is that of
`tests/support/published_counts.py`, counted from the layers of the published network, and in brackets what ours has more.
"""

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import jax  # noqa: E402
from support.method_counts import count_backbone, count_head  # noqa: E402
from support.methods import load  # noqa: E402
from support.published_counts import COUNTS  # noqa: E402

from pyrseg_jax.data.datasets import DATASETS  # noqa: E402
from pyrseg_jax.paper.methods import METHODS  # noqa: E402
from pyrseg_jax.run import experiment  # noqa: E402

DATA = {"ade20k": 150, "coco_stuff10k": 171}
HEADER = (
    "| words | context | backbone | head, C = 150 | C = 171 | auxiliary | total, C = 150 | other count, C = 150 / 171 | "
    "convolutions | products | XLA | convolutions, C = 171 | products | backbone | other count |"
)


@dataclasses.dataclass(frozen=True)
class Row:
    """The counts of a network.

    Attributes:
      words: after the config's name.
      context: key of `CONTEXTS`.
      backbone: its name, stem and output stride.
      stem: of a ResNet.
      heads: parts with 150 and 171 classes.
      whole: parameters and multiply-adds of the backbone.
    """

    words: str
    context: str
    backbone: str
    stem: str | None
    heads: tuple
    whole: tuple

    def describe(self) -> str:
        """Return the row of the table."""
        (head, head_171), (parameters, work) = self.heads, self.whole
        other = COUNTS.get((self.context, self.stem))
        counted, cost = "–", "–"
        if other is not None:
            pairs = [(head.head, other.head), (head_171.head, other.head_171)]
            counted = " / ".join(
                "–" if theirs is None else f"{theirs:,} ({ours - theirs:+,})" for ours, theirs in pairs
            )
            if other.multiply_adds is not None:
                more = getattr(head, other.includes) - other.multiply_adds
                cost = f"{other.multiply_adds} ({more:+.2f}, {other.includes})"
        total = parameters + head.head + head.auxiliary
        cells = [self.words, self.context, self.backbone, f"{head.head:,}", f"{head_171.head:,}", f"{head.auxiliary:,}"]
        cells += [f"{total:,}", counted, f"{head.convolutions:.1f}", f"{head.products:.1f}", f"{head.compiler:.1f}"]
        cells += [f"{head_171.convolutions:.1f}", f"{head_171.products:.1f}", f"{work:.1f}", cost]
        return f"| {' | '.join(cells)} |"


def count(words: str) -> Row:
    """Count the network that these words name, with both numbers of classes."""
    heads = []
    for data, num_classes in DATA.items():
        classes = DATASETS[data].read_label_space(None)
        assert classes.num_classes == num_classes
        config = load(data, words)
        model = experiment.make_model(config, classes)
        heads.append(count_head(model, asks_compiler=num_classes == 150))
    network = config.model
    backbone = count_backbone(model.backbone)
    is_resnet = network.backbone.startswith("resnet")
    stem = network.stem or "v1c" if is_resnet else None
    name = f"{network.backbone}, {stem}, stride {network.output_stride or 8}" if is_resnet else network.backbone
    return Row(words, network.context, name, stem, tuple(heads), (backbone.head, backbone.products))


def words_of(method: str) -> list[str]:
    """Return the words that build a method on each backbone."""
    if method == "hrnet":
        return ["hrnet"]
    found = [f"resnet101,{method}"]
    if METHODS[method].release not in (None, "mmsegmentation"):
        found.append(f"resnet101,{method},mmsegmentation")
    return [*found, method]


def main() -> None:
    """Count all methods and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--methods", default=",".join(METHODS), help="words of methods, joined with commas")
    parser.add_argument("--json")
    arguments = parser.parse_args()
    print(f"jax {jax.__version__}\n\n{HEADER}\n{'|---' * HEADER.count(' | ')}|---|")
    rows = []
    for method in arguments.methods.split(","):
        start = time.perf_counter()
        for words in words_of(method):
            rows.append(count(words))
            print(rows[-1].describe(), flush=True)
        print(f"{method}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps([dataclasses.asdict(row) for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
