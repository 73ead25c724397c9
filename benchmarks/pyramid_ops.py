"""Time the operations on pyramids and label maps, against PyTorch, NumPy, and a mere copy of their inputs and outputs.

    python benchmarks/pyramid_ops.py [--full] [--only=NAME[,NAME]] [--json=FILE]

Prints, for each operation, the milliseconds of our function, of copying all its inputs and outputs once, of PyTorch and of NumPy,
and our time as a multiple of the copy's. All take turns, and the medians are printed. The default is 4 images of 512×512 with 150
classes, for a CPU; with `--full` there are 16. The results are compared before they are timed. PyTorch is left out where it is not
installed.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
import jax.numpy as jnp
import numpy as np
from timing import describe_machine, in_turn, print_table, ready, write_json

from pyrseg_jax.evaluation import pixels
from pyrseg_jax.models.resample import class_of_pixels
from pyrseg_jax.pyramid import build_targets, fuse, specialize
from pyrseg_jax.training.losses import ohem_targets

try:
    import torch
    from torch.nn import functional as F
except ImportError:
    torch = None

STRIDES, SIDE, NUM_CLASSES, THRESHOLD = (32, 16, 8, 4), 512, 150, 0.5
OHEM = {"threshold": 0.7, "min_kept": 20_000}


# --- NumPy, from the definitions


def cells(x, size):
    n, h, w = x.shape
    return x.reshape(n, h // size, size, w // size, size)


def numpy_targets(labels):
    semantic, unity = [], []
    for stride in STRIDES[:-1]:
        blocks = cells(labels, stride)
        is_unit = blocks.max((2, 4)) == blocks.min((2, 4))
        semantic.append(np.where(is_unit, blocks[:, :, 0, :, 0], 255))
        unity.append(is_unit.astype(np.int32))
    return [*semantic, labels[:, 2::4, 2::4]], unity


def numpy_specialize(semantic, unity, logits):
    done, found = None, ([semantic[0]], [unity[0]])
    for level, u in enumerate(logits):
        is_found = (unity[level] == 1) & (u >= 0)
        done = is_found if done is None else done | is_found
        done = done.repeat(2, 1).repeat(2, 2)
        found[0].append(np.where(done, 255, semantic[level + 1]))
        if level + 1 < len(unity):
            found[1].append(np.where(done, 255, unity[level + 1]))
    return found


def numpy_fuse(probs, unity):
    fused, is_open = probs[0], None
    for finer, u in zip(probs[1:], unity, strict=True):
        is_open = u < THRESHOLD if is_open is None else is_open & (u < THRESHOLD)
        is_open = is_open.repeat(2, 1).repeat(2, 2)
        fused = np.where(is_open[..., None], finer, fused.repeat(2, 1).repeat(2, 2))
    return fused


def numpy_confusion(truth, found):
    is_known = truth != 255
    pairs = truth[is_known].astype(np.int64) * NUM_CLASSES + found[is_known]
    return np.bincount(pairs, minlength=NUM_CLASSES**2).reshape(NUM_CLASSES, NUM_CLASSES)


def numpy_easy(logits, classes):
    shifted = logits - logits.max(-1, keepdims=True)
    log_probs = np.take_along_axis(shifted, classes[..., None], -1)[..., 0] - np.log(np.exp(shifted).sum(-1))
    kept = max(np.partition(log_probs.ravel(), OHEM["min_kept"] - 1)[OHEM["min_kept"] - 1], np.log(OHEM["threshold"]))
    return np.where(log_probs <= kept, classes, 255)


# --- PyTorch


def torch_targets(labels):
    semantic, unity = [], []
    for stride in STRIDES[:-1]:
        n, h, w = labels.shape
        blocks = labels.view(n, h // stride, stride, w // stride, stride)
        low = blocks.amin((2, 4))
        is_unit = blocks.amax((2, 4)) == low
        semantic.append(torch.where(is_unit, low, 255))
        unity.append(is_unit.int())
    return [*semantic, labels[:, 2::4, 2::4]], unity


def torch_children(x):
    return x.repeat_interleave(2, 1).repeat_interleave(2, 2)


def torch_specialize(semantic, unity, logits):
    done, found = None, ([semantic[0]], [unity[0]])
    for level, u in enumerate(logits):
        is_found = (unity[level] == 1) & (torch.sigmoid(u) >= THRESHOLD)
        done = torch_children(is_found if done is None else done | is_found)
        found[0].append(torch.where(done, 255, semantic[level + 1]))
        if level + 1 < len(unity):
            found[1].append(torch.where(done, 255, unity[level + 1]))
    return found


def torch_fuse(probs, unity):
    fused, is_open = probs[0], None
    for finer, u in zip(probs[1:], unity, strict=True):
        is_open = torch_children(u < THRESHOLD if is_open is None else is_open & (u < THRESHOLD))
        fused = torch.where(is_open[..., None], finer, torch_children(fused))
    return fused


def torch_confusion(truth, found):
    is_known = truth != 255
    pairs = truth[is_known].long() * NUM_CLASSES + found[is_known].long()
    return torch.bincount(pairs, minlength=NUM_CLASSES**2).view(NUM_CLASSES, NUM_CLASSES)


def torch_easy(logits, classes):
    log_probs = F.log_softmax(logits, -1).gather(-1, classes.long()[..., None])[..., 0]
    kept = torch.kthvalue(log_probs.flatten(), OHEM["min_kept"]).values.clamp(min=float(np.log(OHEM["threshold"])))
    return torch.where(log_probs <= kept, classes, 255)


def torch_classes(probs):
    maps = probs.permute(0, 3, 1, 2)
    return torch.stack([F.interpolate(x[None], (SIDE, SIDE), mode="bilinear")[0].argmax(0).byte() for x in maps])


# --- the comparison


def confusion(truth, found):
    """Count pixels piece by piece, as the evaluator does."""
    truth, found = (x.reshape(-1, pixels.PIXELS_AT_A_TIME) for x in (truth, found))

    def add_piece(i, counts):
        return pixels.count_pairs(counts, true=truth[i].astype(jnp.int32), predicted=found[i].astype(jnp.int32))

    return jax.lax.fori_loop(0, len(truth), add_piece, jnp.zeros((NUM_CLASSES, NUM_CLASSES), jnp.int32))


def operations(num_images: int):
    """Yield name, our function, its arguments, PyTorch's function, NumPy's (or None), and the arguments of these two."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, NUM_CLASSES, (num_images, SIDE // 24 + 1, SIDE // 24 + 1), np.uint8)
    labels = blocks.repeat(24, 1).repeat(24, 2)[:, :SIDE, :SIDE]
    sides = [SIDE // stride for stride in STRIDES]
    unity = [rng.normal(size=(num_images, side, side)).astype(np.float32) for side in sides[:-1]]
    logits = [rng.normal(size=(num_images, side, side, NUM_CLASSES)).astype(np.float32) for side in sides]
    probs = [np.array(jax.nn.softmax(3 * x)) for x in logits]
    opened = [np.array(jax.nn.sigmoid(u)) for u in unity]
    targets = build_targets(labels)
    found = rng.integers(0, NUM_CLASSES, labels.shape, np.uint8)
    plain = [[np.asarray(t) for t in part] for part in targets]
    yield "build_targets", build_targets, (labels,), torch_targets, numpy_targets, (labels,)
    yield "specialize", specialize, (targets, unity), torch_specialize, numpy_specialize, (*plain, unity)
    yield "fuse", lambda p, u: fuse(p, u).probs, (probs, opened), torch_fuse, numpy_fuse, (probs, opened)
    classes = plain[0][-1]
    easy = (logits[-1], classes)
    yield "hard examples", lambda x, y: ohem_targets(x, y, *OHEM.values()), easy, torch_easy, numpy_easy, easy
    yield "confusion matrix", confusion, (labels, found), torch_confusion, numpy_confusion, (labels, found)
    full_size = class_of_pixels
    yield "class of every pixel", lambda p: full_size(p, (SIDE, SIDE)), (probs[-1],), torch_classes, None, (probs[-1],)


def to_torch(tree):
    device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    return jax.tree.map(lambda x: torch.tensor(np.array(x), device=device), tree)


def finished(function, *arguments):
    def run():
        result = function(*arguments)
        if jax.default_backend() == "gpu":
            torch.cuda.synchronize()
        return result

    return run


def check(name: str, ours, theirs) -> None:
    """Assert that two results are equal, except for the few values that rounding decides."""
    pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
    for a, b in pairs:
        b = b.cpu().numpy() if torch is not None and isinstance(b, torch.Tensor) else b
        assert (np.abs(np.asarray(a, np.float64) - b) < 1e-5).mean() > 0.9999, name


def main() -> None:
    """Time the operations, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--full", action="store_true", help="16 images")
    parser.add_argument(
        "--only", type=lambda names: names.split(","), help="operations to time, separated by commas; by default all"
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    num_images = 16 if options.full else 4
    chosen = list(operations(num_images))
    names = [name for name, *_ in chosen]
    if unknown := set(options.only or ()) - set(names):
        parser.error(f"--only={','.join(sorted(unknown))}: expected names among {', '.join(names)}")
    found = []
    for name, function, arguments, in_torch, in_numpy, plain in chosen:
        if options.only and name not in options.only:
            continue
        arguments = jax.device_put(arguments)
        run = jax.jit(function)
        result = jax.block_until_ready(run(*arguments))
        copy = jax.jit(lambda tree: jax.tree.map(jnp.copy, tree))
        runs = {"ours": ready(run, *arguments), "copy": ready(copy, (arguments, result))}
        if torch is not None:
            runs["torch"] = finished(in_torch, *to_torch(plain))
            check(name, result, runs["torch"]())
        if in_numpy is not None:
            runs["numpy"] = lambda f=in_numpy, a=plain: f(*a)
            check(name, result, runs["numpy"]())
        found.append({"operation": name, "ms": {k: 1e3 * s for k, s in in_turn(runs, options.rounds, 0.1).items()}})
    print(f"{num_images}×{SIDE}×{SIDE}, {NUM_CLASSES} classes; ms", end="; ")
    print(describe_machine(**({} if torch is None else {"torch": torch.__version__})) + "\n")
    rows = []
    for row in found:
        ms = row["ms"]
        times = [f"{ms[way]:.1f}" if way in ms else "–" for way in ("ours", "copy", "torch", "numpy")]
        rows.append((row["operation"], *times, f"{ms['ours'] / ms['copy']:.1f}"))
    print_table(("operation", "ours", "copy", "PyTorch", "NumPy", "ours / copy"), rows)
    write_json(options.json, found)


if __name__ == "__main__":
    main()
