"""The analysis of the pyramid against a slow twin that reads the same predictions pixel by pixel."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import twins
from support.data_sets import CLASSES, draw_pair, write_folder
from support.evaluation import comparable, evaluate, predictor, tiny, two_sizes

from pyrseg_jax.data.catalog import open_dataset
from pyrseg_jax.data.decode import decode_pair
from pyrseg_jax.data.resample import resize_image
from pyrseg_jax.evaluation.boundary import near_boundary
from pyrseg_jax.evaluation.metrics import scores
from pyrseg_jax.evaluation.views import PROTOCOLS, Protocol, make_protocol, window_starts
from pyrseg_jax.models.inputs import normalize

STRIDES = (32, 16, 8, 4)


def slow_near_boundary(labels, distance):
    """Ask every pixel for every boundary pixel around it."""
    height, width = labels.shape
    is_boundary = np.zeros((height, width), bool)
    for i, j in np.ndindex(height, width):
        for a, b in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)):
            if 0 <= a < height and 0 <= b < width and 255 not in (labels[i, j], labels[a, b]):
                is_boundary[i, j] |= labels[i, j] != labels[a, b]
    found = np.zeros_like(is_boundary)
    for i, j in np.argwhere(is_boundary):
        found[max(i - distance, 0) : i + distance + 1, max(j - distance, 0) : j + distance + 1] = True
    return found


@pytest.mark.parametrize("distance", [1, 8])
def test_near_boundary_equals_the_twin(rng, distance):
    labels = np.repeat(np.repeat(rng.choice([0, 1, 1, 1, 255], (4, 5)), 11, 0), 13, 1).astype(np.uint8)
    found = near_boundary(labels, distance)
    np.testing.assert_array_equal(found, slow_near_boundary(labels, distance))
    assert 0 < found.mean() < 1


def test_void_makes_no_boundary():
    labels = np.zeros((20, 20), np.uint8)
    labels[:, 10:] = 255
    assert not near_boundary(labels).any()


def slow_analysis(images_and_labels, threshold=0.5):
    """All sums of the analysis, image by image, level by level, pixel by pixel."""
    model, variables = tiny()
    apply = jax.jit(functools.partial(model.apply, variables))
    zeros = functools.partial(np.zeros, dtype=int)
    fused, alone, oracle = zeros((2, 4, 3, 3)), zeros((4, 4, 3, 3)), zeros((2, 3, 3))
    unity, unit_cells = zeros((3, 3)), zeros((3, 3))
    for image, labels in images_and_labels:
        size = Protocol().sizes(*labels.shape)[0]
        predicted = apply(normalize(jnp.asarray(resize_image(image, size)[None])))
        probs = [np.asarray(jax.nn.softmax(x)) for x in predicted.semantic]
        unity_probs = [np.asarray(jax.nn.sigmoid(x)) for x in predicted.unity]
        rows, columns = (np.int64((np.arange(n) + 0.5) * old / n) for n, old in zip(size, labels.shape, strict=True))
        shown = labels[rows[:, None], columns]
        semantic, is_unit = twins.build_targets(shown[None], STRIDES, "agree")
        for level in range(3):
            for at in np.ndindex(is_unit[level].shape):
                if is_unit[level][at] == 255:
                    continue
                is_predicted = unity_probs[level][at] >= threshold
                unity[level] += [is_unit[level][at] == 1, is_predicted, is_predicted and is_unit[level][at] == 1]
                if is_unit[level][at] == 1:
                    unit_cells[level, semantic[level][at]] += 1

        found, level = twins.fuse(probs, unity_probs, threshold)
        with_true_unity, _ = twins.fuse(probs, [(u == 1).astype(float) for u in is_unit], threshold)
        truth = []
        for stride, classes in zip(STRIDES, semantic, strict=True):
            center = shown[None, stride // 2 :: stride, stride // 2 :: stride]
            truth.append(np.eye(256)[np.where(classes == 255, center, classes)][..., :3])
        with_true_semantics, _ = twins.fuse(truth, unity_probs, threshold)

        def classes_of(probs, labels=labels):
            return twins.bilinear(probs[0], labels.shape).argmax(-1)

        maps = [classes_of(p) for p in (found, *probs, with_true_unity, with_true_semantics)]
        near = slow_near_boundary(labels, 8)
        for i, j in np.argwhere(labels != 255):
            at = tuple(
                int((k + 0.5) * n / old) for k, n, old in zip((i, j), level.shape[1:], labels.shape, strict=True)
            )
            t, group = labels[i, j], level[0][at]
            fused[int(near[i, j]), group, t, maps[0][i, j]] += 1
            for k in range(4):
                alone[k, group, t, maps[1 + k][i, j]] += 1
            for k in range(2):
                oracle[k, t, maps[5 + k][i, j]] += 1
    return fused, alone, oracle, unity, unit_cells


def close(found, expected):
    """Within what a pixel or two can change whose classes are equally likely."""
    return found == pytest.approx(expected, abs=2e-3)


def test_analysis_equals_the_twin(tmp_path):
    root = two_sizes(tmp_path)
    dataset = open_dataset("folder", str(root), None)
    source = dataset.open_split("validation")
    pairs = [decode_pair(source[i], dataset.label_space) for i in range(len(source))]
    fused, alone, oracle, unity, unit_cells = slow_analysis(pairs)
    result = evaluate(root, batch_size=2)

    def miou(confusion):
        return scores(confusion, CLASSES)["miou"]

    np.testing.assert_allclose(result["confusion"], fused.sum((0, 1)), atol=30)  # of 26,000: equally likely classes
    assert close(result["boundary_miou"], miou(fused[1].sum(0)))
    assert result["boundary_miou"] < result["miou"]
    assert result["boundary_px"] == 8
    for k in range(4):
        for group in range(4):
            assert close(result["level_miou"][k][group], miou(alone[k, group]))
        expected = scores(alone[k].sum(0), CLASSES)["iou"]
        assert close({name: values[k] for name, values in result["level_iou"].items()}, expected)
    assert close(result["oracle"]["true_unity_miou"], miou(oracle[0]))
    assert close(result["oracle"]["true_semantic_miou"], miou(oracle[1]))
    assert result["oracle"]["true_semantic_miou"] > result["miou"]
    np.testing.assert_allclose(result["unity"]["precision"], unity[:, 2] / unity[:, 1])
    np.testing.assert_allclose(result["unity"]["recall"], unity[:, 2] / unity[:, 0])
    assert result["unit_cells"] == {name: unit_cells[:, c].tolist() for c, name in enumerate(CLASSES)}
    devkit = (result["pixel_accuracy"] + result["miou_all_classes"]) / 2
    assert result["ade20k_score"] == pytest.approx(devkit)


def test_without_analysis_the_scores_are_the_same(tmp_path):
    root = write_folder(tmp_path, {"validation": 3}, size=(60, 64))
    full, short = (evaluate(root, batch_size=2, is_analyzed=is_analyzed) for is_analyzed in (True, False))
    analysis = ("level_miou", "level_iou", "unity", "unit_cells", "oracle")
    assert all(short.pop(name) is None and full.pop(name) is not None for name in analysis)
    assert comparable(full) == comparable(short)


def test_sizes_of_the_published_protocols():
    assert make_protocol("single", 512, 2048, 32).sizes(500, 375) == ((672, 512),)  # 683 is nearest to 672
    assert make_protocol("mmsegmentation", None, 1, 32).sizes(100, 1000) == (
        (192, 2048),
    )  # the long side decides: 204.8
    assert make_protocol("hrnet", None, 1, 32).sizes(520, 1040) == ((512, 1056),)  # 520 and 1040, rounded up at a tie
    scales = make_protocol("multi_scale_flip", 512, 2048, 32)
    assert scales.sizes(512, 512) == ((512, 512), (256, 256), (384, 384), (640, 640), (768, 768), (896, 896))
    assert scales.describe()["scales"] == [0.5, 0.75, 1.0, 1.25, 1.5, 1.75]
    for name in PROTOCOLS:
        assert make_protocol(name, None, 2048, 32).scales[0] == 1.0


@pytest.mark.parametrize(("side", "window"), [(512, 512), (544, 512), (1056, 512), (2048, 512), (96, 64)])
def test_windows_cover_the_image(side, window):
    starts = window_starts(side, window, 4)
    assert starts[0] == 0
    assert starts[-1] == side - window
    assert all(start % 4 == 0 for start in starts)
    assert all(b - a <= window * 2 / 3 for a, b in zip(starts[:-1], starts[1:], strict=True))


def slow_protocol(image, size, sizes, mirrored, window=None):
    """Mean of fused probabilities, one view and one window at a time."""
    model, variables = tiny()
    apply = jax.jit(functools.partial(model.apply, variables))

    def fused(pixels):
        out = apply(normalize(jnp.asarray(np.ascontiguousarray(pixels)[None])))
        return twins.fuse([jax.nn.softmax(x) for x in out.semantic], [jax.nn.sigmoid(x) for x in out.unity], 0.5)[0][0]

    total = 0
    for view_size in sizes:
        shown = resize_image(image, view_size)
        for is_mirrored in (False, True) if mirrored else (False,):
            pixels = shown[:, ::-1] if is_mirrored else shown
            side = window or max(view_size)
            sums, times = np.zeros((view_size[0] // 4, view_size[1] // 4, 3)), 0
            times = np.zeros((*sums.shape[:2], 1))
            for top in window_starts(view_size[0], side, 4):
                for left in window_starts(view_size[1], side, 4):
                    at = (slice(top // 4, (top + side) // 4), slice(left // 4, (left + side) // 4))
                    sums[at] += fused(pixels[top : top + side, left : left + side])
                    times[at] += 1
            probs = twins.bilinear(sums / times, size)
            total = total + (probs[:, ::-1] if is_mirrored else probs)
    return total / (len(sizes) * (1 + mirrored))


@pytest.mark.parametrize(
    "protocol",
    [
        Protocol(scales=(1.0, 1.5), is_mirrored=True),
        Protocol(window_px=64, short_side_px=96),
        pytest.param(Protocol(scales=(1.0, 0.5, 1.5), is_mirrored=True), marks=pytest.mark.slow),
    ],
)
def test_protocols_equal_the_twin(tmp_path, protocol):
    root = write_folder(tmp_path, {"validation": 3}, size=(60, 70))
    dataset = open_dataset("folder", str(root), None)
    source = dataset.open_split("validation")
    predict = predictor(protocol)
    confusion, num_unclear = np.zeros((3, 3), int), 0
    for i in range(len(source)):
        image, labels = decode_pair(source[i], dataset.label_space)
        sizes = protocol.sizes(*labels.shape)
        expected = slow_protocol(image, labels.shape, sizes, protocol.is_mirrored, protocol.window_px)
        top = np.sort(expected, -1)
        is_clear = top[..., -1] - top[..., -2] > 1e-4  # two views that are sure of different classes leave none
        found = predict(image).labels
        np.testing.assert_array_equal(found[is_clear], expected.argmax(-1)[is_clear])
        confusion += twins.confusion_matrix(labels, found, 3)
        num_unclear += (~is_clear).sum()
    assert num_unclear < 0.2 * confusion.sum()
    result = evaluate(root, batch_size=2, protocol=protocol)
    np.testing.assert_allclose(result["confusion"], confusion, atol=num_unclear)
    assert result["level_miou"] is None


def test_the_mirrored_image_has_the_mirrored_result(tmp_path, rng):
    image, _ = draw_pair(rng, 64, 96)
    predict = predictor(Protocol(is_mirrored=True))
    straight, mirrored = (predict(np.ascontiguousarray(x)).labels for x in (image, image[:, ::-1]))
    assert (straight == mirrored[:, ::-1]).mean() > 0.999
    once = predictor()
    assert (once(image).labels != once(np.ascontiguousarray(image[:, ::-1])).labels[:, ::-1]).mean() > 0.01


def test_batches_and_sizes_need_few_programs(tmp_path):
    """Many image sizes: two programs per network shape (network, analysis) and few for pixels; scores do not depend on batches."""
    root = tmp_path / "all"
    for number, size in enumerate([(60, 64), (61, 70), (66, 63), (64, 90), (70, 100), (300, 310)]):
        write_folder(tmp_path / f"{number}", {"validation": 1}, size=size, seed=number)
        for kind in ("images", "annotations"):
            (root / kind / "validation").mkdir(parents=True, exist_ok=True)
            for path in (tmp_path / f"{number}" / kind / "validation").iterdir():
                path.rename(root / kind / "validation" / f"{number}_{path.name}")
    (root / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    protocol = Protocol(long_side_px=96)
    shapes = {protocol.sizes(*size)[0] for size in [(60, 64), (61, 70), (66, 63), (64, 90), (70, 100), (300, 310)]}
    batched, alone = (evaluate(root, batch_size=n, protocol=protocol) for n in (2, 1))
    assert len(shapes) == 3
    # Label maps of up to 256² and of up to 1024² pixels have different padded sizes.
    assert batched["compiled_programs"] == 2 * len(shapes) + 2
    assert comparable(batched) == comparable(alone)
