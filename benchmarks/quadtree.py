"""Time the decoder of QGN: dense, sparse with whole masked maps, and sparse with skipped cells.

    python benchmarks/quadtree.py [--side=512] [--rounds=5] [--dtype=float32] [--json=FILE]

Prints the milliseconds of the decoder at full width with 150 classes, on random features of one image, and its time as a multiple
of the dense and of the masked form. The skipping form runs with several shares of active cells: as many cells of stride 32 are
composite, and all cells below them. All runs take turns, and the medians are printed. The two sparse forms are compared before
they are timed.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
import jax.numpy as jnp
import numpy as np
from timing import describe_machine, in_turn, print_table, ready, write_json

from pyrseg_jax.models.backbones import Features
from pyrseg_jax.models.contexts.qgn import QGN
from pyrseg_jax.models.contexts.quadtree import COMPOSITE, STRIDES

NUM_CLASSES, WIDTH = 150, 512
CHANNELS = {2: 128, 4: 256, 8: 512, 16: 1024, 32: 2048}  # of ResNet-101 with a deep stem
SHARES = (1.0, 0.5, 0.25, 0.1, 0.03)
SURE = 1e4  # a logit that decides


def draw_features(rng: np.random.Generator, side: int, dtype: str) -> Features:
    """Draw the backbone's maps of one image."""
    stem, *stages = (
        jnp.asarray(np.maximum(rng.normal(size=(1, side // stride, side // stride, channels)), 0), dtype)
        for stride, channels in CHANNELS.items()
    )
    return Features(tuple(stages), stages[-1], stem)


def mark(features: Features, share: float) -> Features:
    """Set the first channel of C5 to 1 where cells are composite, and to -1 elsewhere."""
    final = features.stages[-1]
    num_cells = final.shape[1] * final.shape[2]
    is_composite = np.random.default_rng(0).permutation(num_cells) < round(share * num_cells)
    marked = final.at[..., 0].set(np.where(is_composite, 1, -1).reshape(1, *final.shape[1:3]))
    return features._replace(stages=(*features.stages[:-1], marked), final=marked)


def draw_variables(rng: np.random.Generator, module: QGN, features: Features) -> dict:
    """Draw a network that reads from C5's first channel whether a cell is composite, as all cells below it are."""
    abstract = jax.eval_shape(lambda: module.init(jax.random.key(0), features, None, False))

    def draw(path, leaf):
        name = path[-1].key
        if name == "kernel":
            return jnp.asarray(rng.normal(0, np.prod(leaf.shape[:-1]) ** -0.5, leaf.shape), jnp.float32)
        return jnp.ones(leaf.shape) if name in ("scale", "var") else jnp.zeros(leaf.shape)

    variables = jax.tree_util.tree_map_with_path(draw, abstract)
    for stride in STRIDES[:-1]:
        layer = variables["params"][f"classify_{stride}"]
        if stride == STRIDES[0]:
            layer["kernel"] = layer["kernel"].at[..., COMPOSITE].set(0).at[..., 0, COMPOSITE].set(SURE)
        else:
            layer["bias"] = layer["bias"].at[COMPOSITE].set(SURE)
    return variables


def main() -> None:
    """Time the three forms, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--side", type=int, default=512, help="side of the image in pixels")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    features = draw_features(rng, options.side, options.dtype)
    forms = {
        "dense": QGN(NUM_CLASSES, WIDTH, False, dtype=options.dtype),
        "masked": QGN(NUM_CLASSES, WIDTH, True, dtype=options.dtype, is_skipping=False),
        "skipping": QGN(NUM_CLASSES, WIDTH, True, dtype=options.dtype),
    }
    sparse = draw_variables(rng, forms["masked"], features)
    variables = {"dense": draw_variables(rng, forms["dense"], features), "masked": sparse, "skipping": sparse}
    run = {
        name: jax.jit(lambda variables, features, form=form: form.apply(variables, features, None, False).logits)
        for name, form in forms.items()
    }
    marked = {share: mark(features, share) for share in SHARES}
    if options.dtype == "float32":
        ours, plain = (run[name](sparse, marked[0.25]) for name in ("skipping", "masked"))
        difference = jnp.abs(ours - plain).max() / jnp.abs(plain).max()
        assert difference < 1e-5, f"the skipping and the masked form differ by {difference}"
    runs = {name: ready(run[name], variables[name], marked[0.25]) for name in ("dense", "masked")}
    for share, shown in marked.items():
        runs[f"skipping, {share:.0%} active"] = ready(run["skipping"], sparse, shown)
    seconds = in_turn(runs, options.rounds)
    print(describe_machine())
    rows = [
        (name, f"{1e3 * time:.0f}", f"{time / seconds['dense']:.2f}", f"{time / seconds['masked']:.2f}")
        for name, time in seconds.items()
    ]
    print_table(("decoder", "ms", "of dense", "of masked"), rows)
    write_json(options.json, seconds)


if __name__ == "__main__":
    main()
