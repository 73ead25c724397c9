"""Comparing evaluated runs: the bootstrap against a slow twin and its laws, how runs are found and joined, and what is written."""

import json
import shlex
import subprocess
import sys

import numpy as np
import pytest
from etils import epath
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from support.command_line import call, error_of
from support.evaluated_runs import STEP, count, digests_of, draw_truth, predict, write_evaluated

from pyrseg_jax.commands import MODES
from pyrseg_jax.evaluation import bootstrap
from pyrseg_jax.evaluation.metrics import class_scores, scores
from pyrseg_jax.reporting.comparison_figure import comparison_figure
from pyrseg_jax.reporting.comparison_table import comparison_markdown, comparison_table
from pyrseg_jax.run import command_line
from pyrseg_jax.run.compared_experiments import FOLDS, ONE, SEEDS, join, label_all
from pyrseg_jax.run.compared_runs import NEWEST, read_argument, read_run
from pyrseg_jax.run.comparison import compare_experiments

NUM_IMAGES, NUM_CLASSES, NUM_RESAMPLES = 20, 5, 300


def counts_of(matrices):
    return np.stack([matrices.diagonal(axis1=1, axis2=2), matrices.sum(1), matrices.sum(2)], -1).astype(np.int64)


def draw_matrices(seed, num_images, num_classes, most=6):
    """Draw confusion matrices of images, in which many classes do not occur."""
    rng = np.random.default_rng(seed)
    shown = rng.random((num_images, num_classes)) < 0.4
    return rng.integers(0, most, (num_images, num_classes, num_classes)) * shown[:, :, None] * shown[:, None]


def scores_of_matrix(matrix, rarest):
    """Compute the scores of a confusion matrix by the functions of an evaluation."""
    names = [str(i) for i in range(len(matrix))]
    main = scores(matrix, names)
    iou = [main["iou"][name] for name in names]
    rare = [iou[i] for i in rarest if iou[i] is not None] if matrix.sum() else []
    means = [main["miou"], main["pixel_accuracy"], class_scores(matrix, names)["mean_dice"]]
    return [*means, sum(rare) / len(rare) if rare else None, *iou]


def as_array(values):
    return np.array([np.nan if value is None else value for value in values], float)


# ── The statistic ──


@given(st.integers(0, 9999), st.integers(1, 7), st.integers(1, 4), st.integers(1, 3))
@settings(max_examples=30)
def test_the_bootstrap_equals_the_slow_twin(seed, num_images, num_classes, num_runs):
    """The twin draws the images one by one, adds up their confusion matrices, and scores the sum as an evaluation does."""
    runs = [draw_matrices(seed + i, num_images, num_classes) for i in range(num_runs)]
    rarest = bootstrap.rarest_classes(counts_of(runs[0]).sum(0)[:, 2])
    experiments = [[counts_of(run) for run in runs], [counts_of(runs[0])]]
    found = bootstrap.bootstrap(experiments, rarest, 5, seed)
    times = np.concatenate(list(bootstrap.draw_multiplicities(num_images, 5, seed, 5)))
    for row, samples in zip(times, found.swapaxes(0, 1), strict=True):
        drawn = [i for i in range(num_images) for _ in range(int(row[i]))]
        assert len(drawn) == num_images
        of_runs = [scores_of_matrix(sum(run[i] for i in drawn), rarest) for run in runs]
        defined = [[x for x in column if x is not None] for column in zip(*of_runs, strict=True)]
        means = [sum(column) / len(column) if column else None for column in defined]
        np.testing.assert_allclose(samples[0], as_array(means), rtol=1e-12)
        np.testing.assert_allclose(samples[1], as_array(of_runs[0]), rtol=1e-12)


def test_the_memory_limit_changes_no_result():
    experiments = [[counts_of(draw_matrices(1, 11, 3))]]
    whole = bootstrap.bootstrap(experiments, [0, 1], 100, seed=3)
    for max_values in (1, 11 * 7, 10**6):
        np.testing.assert_array_equal(bootstrap.bootstrap(experiments, [0, 1], 100, 3, max_values), whole)
    assert (bootstrap.bootstrap(experiments, [0, 1], 100, seed=4) != whole).any()


def test_each_image_is_drawn_equally_often():
    times = np.concatenate(list(bootstrap.draw_multiplicities(8, 4000, 0, 999)))
    assert times.shape == (4000, 8)
    np.testing.assert_array_equal(times.sum(1), 8)
    np.testing.assert_allclose(times.mean(0), 1, atol=0.06)
    np.testing.assert_allclose(times.var(0), 7 / 8, atol=0.1)  # of a binomial with 8 draws


@pytest.mark.parametrize("index", [0, 1, 2])
def test_intervals_cover_the_score_of_all_images_about_as_often_as_they_say(index):
    """Samples of 60 images are drawn from 20,000 whose scores are known: mIoU, pixel accuracy, mean Dice."""
    rng = np.random.default_rng(index)
    labeled = rng.integers(1, 500, (20_000, 3))
    right = rng.binomial(labeled, rng.beta(4, 2, (20_000, 3)))
    wrong = np.roll(labeled - right, 1, axis=1)  # what one class loses, the next one is given
    population = np.stack([right, right + wrong, labeled], -1)
    truth = bootstrap.scores_of_sums(population.sum(0), [0])[index]
    num_covered = 0
    for trial in range(200):
        counts = population[rng.integers(0, len(population), 60)]
        interval = bootstrap.intervals(bootstrap.bootstrap([[counts]], [0], 400, trial)[0])[index]
        num_covered += interval.low <= truth <= interval.high
    assert 0.89 <= num_covered / 200 <= 0.985


def test_pairing_narrows_the_interval_of_the_difference_of_correlated_runs():
    """Both runs find the same images hard. Draws of their own for each run would give the variance of a sum."""
    rng = np.random.default_rng(0)
    truth = draw_truth(rng, 80, 4)
    first = predict(rng, truth, 0.7)
    second = [np.where(rng.random(x.shape) < 0.05, t, x) for t, x in zip(truth, first, strict=True)]
    a, b = (counts_of(count(truth, p, 4)) for p in (first, second))
    both = bootstrap.bootstrap([[a], [b]], [0], 1000)
    other = bootstrap.bootstrap([[b]], [0], 1000, seed=1)[0]
    paired = bootstrap.intervals(both[1] - both[0])[0]
    apart = bootstrap.intervals(other - both[0])[0]
    assert 0 < paired.low < paired.high
    assert paired.high - paired.low < 0.3 * (apart.high - apart.low)


def test_rarest_classes_have_the_fewest_labeled_pixels():
    assert bootstrap.rarest_classes(np.array([9, 0, 4, 4, 7, 1])) == [5, 2, 3]
    assert bootstrap.rarest_classes(np.array([0, 0])) == []


def test_an_interval_leaves_out_resamples_without_the_score():
    column = np.array([np.nan, *np.linspace(0, 1, 101)])
    low, high = bootstrap.intervals(np.stack([column, np.full(102, np.nan)], -1))
    assert (low.low, low.high) == pytest.approx((0.025, 0.975))
    assert high is None
    with pytest.raises(ValueError, match=r"the counts have the shapes \[\]: expected one shape, with images"):
        bootstrap.bootstrap([], [0])


# ── Runs and experiments ──


@pytest.fixture(scope="module")
def cases():
    """Label maps of images, and the confusion matrices of six runs on them."""
    rng = np.random.default_rng(0)
    truth = draw_truth(rng, NUM_IMAGES, NUM_CLASSES, 90)
    return [count(truth, predict(rng, truth, a), NUM_CLASSES) for a in (0.6, 0.6, 0.7, 0.7, 0.7, 0.5)]


@pytest.fixture
def runs(cases, tmp_path):
    """Folders of evaluated runs: base-0, base-1, new-0, new-1, new-2, and the folds fold-0 and fold-1 of the first one."""
    digests = digests_of(range(NUM_IMAGES))
    for name, matrices in zip(("base-0", "base-1", "new-0", "new-1", "new-2"), cases, strict=False):
        write_evaluated(tmp_path / name, matrices, digests)
    for fold in (0, 1):
        write_evaluated(tmp_path / f"fold-{fold}", cases[0][fold::2], digests[fold::2])
    return tmp_path


def compare(*texts, which=NEWEST):
    """Compare as the command does, with fewer resamples."""
    arguments = [read_argument(str(text)) for text in texts]
    found = [[read_run(path, which) for path in argument.paths] for argument in arguments]
    experiments = [join(label, group) for label, group in zip(label_all(arguments, found), found, strict=True)]
    return compare_experiments(experiments, NUM_RESAMPLES)


def test_scores_are_those_of_the_results(runs):
    comparison = compare(runs / "base-0", runs / "new-0")
    first, second = comparison["experiments"]
    for entry in (first, second):
        stored = json.loads((runs / entry["label"] / "evaluation" / f"validation-{STEP}.json").read_text())
        for key in ("miou", "pixel_accuracy", "boundary_miou"):
            assert entry["scores"][key]["value"] == pytest.approx(stored[key], rel=1e-12)
        dice = class_scores(np.array(stored["confusion"]), list(stored["iou"]))["mean_dice"]
        assert entry["scores"]["mean_dice"]["value"] == pytest.approx(dice, rel=1e-12)
        rare = [stored["iou"][name] for name in comparison["rarest"]]
        assert entry["scores"]["rarest_miou"]["value"] == pytest.approx(np.mean(rare), rel=1e-12)
        for name, value in entry["iou"].items():
            assert value["low"] <= value["value"] <= value["high"]
            assert value["value"] == pytest.approx(stored["iou"][name], rel=1e-12)
        assert entry["scores"]["miou"]["low"] < entry["scores"]["miou"]["value"] < entry["scores"]["miou"]["high"]
        assert entry["scores"]["boundary_miou"]["low"] is None
    assert comparison["rarest"] == ["class4", "class3", "class2"]
    assert comparison["images"] == NUM_IMAGES
    (difference,) = comparison["differences"]
    for key, value in difference["scores"].items():
        assert value["value"] == second["scores"][key]["value"] - first["scores"][key]["value"]
    json.dumps(comparison)


def test_identical_runs_differ_by_exactly_nothing(runs):
    for text in (str(runs / "base-0"), f"{runs}/new-*"):
        comparison = compare(text, text)
        (same,) = comparison["differences"]
        for key, value in (same["scores"] | same["iou"]).items():
            has_interval = key != "boundary_miou"
            assert (value["value"], value["low"], value["high"]) == (0, *((0, 0) if has_interval else (None, None)))
        assert [e["label"] for e in comparison["experiments"]] == [text, f"{text} (2)"]


def test_the_order_of_the_images_does_not_matter(runs):
    before = compare(runs / "base-0", runs / "new-0")
    path = runs / "new-0" / "image_counts" / f"validation-{STEP}.json"
    stored = json.loads(path.read_text())
    path.write_text(json.dumps(stored | {"images": stored["images"][::-1]}))
    assert compare(runs / "base-0", runs / "new-0") == before


def test_folds_together_equal_one_evaluation_of_all_images(runs):
    comparison = compare(runs / "base-0", f"{runs}/fold-0+{runs}/fold-1")
    whole, folds = comparison["experiments"]
    assert (whole["joined"], folds["joined"], folds["label"]) == (ONE, FOLDS, "fold")
    assert whole["iou"] == folds["iou"]
    boundary = folds["scores"].pop("boundary_miou")
    assert boundary["value"] is None  # there are no counts of single images for it
    del whole["scores"]["boundary_miou"]
    assert whole["scores"] == folds["scores"]
    assert folds["level_share"] == pytest.approx([0.25, 0.75])


def test_seeds_are_averaged_and_their_spread_is_shown(runs):
    comparison = compare(f"{runs}/base-*", f"better={runs}/new-0+{runs}/new-1+{runs}/new-2")
    base, new = comparison["experiments"]
    assert [base["joined"], new["joined"], base["label"], new["label"]] == [SEEDS, SEEDS, "base", "better"]
    single = [compare(runs / f"new-{i}")["experiments"][0]["scores"]["miou"]["value"] for i in range(3)]
    miou = new["scores"]["miou"]
    assert miou["runs"] == single
    assert miou["value"] == pytest.approx(np.mean(single), rel=1e-12)
    assert miou["deviation"] == pytest.approx(np.std(single, ddof=1), rel=1e-12)
    assert len(new["scores"]["boundary_miou"]["runs"]) == 3
    assert "standard deviation over seeds" in comparison_table(comparison)


@pytest.mark.parametrize("name", ["danet+pyramid-0", "lr=0.1", "a*b", "[x]"])
def test_characters_with_a_meaning_may_be_part_of_a_name(runs, name):
    (runs / "base-0").rename(runs / name)
    (runs / "base-1").rename(runs / f"{name}1")
    found = read_argument(f"{runs / name}+{runs / 'new-0'}+{runs / name}1")
    assert [path.name for path in found.paths] == [name, "new-0", f"{name}1"]
    found = read_argument(f"label={runs / name}")
    assert (found.label, [path.name for path in found.paths]) == ("label", [name])


def test_a_pattern_takes_runs_and_results_alone(runs):
    (runs / "base-2").mkdir()
    (runs / "base.log").write_text("")
    assert [path.name for path in read_argument(f"{runs}/base*").paths] == ["base-0", "base-1"]
    assert len(read_argument(f"{runs}/base-*/evaluation/*.json").paths) == 2


def test_the_result_of_a_run_is_the_newest_of_its_own_protocol(cases, tmp_path):
    digests = digests_of(range(NUM_IMAGES))
    for step, matrices in ((90, cases[2]), (100, cases[0]), (80, cases[1])):
        write_evaluated(tmp_path / "run", matrices, digests, step=step)
    write_evaluated(tmp_path / "run", cases[0], digests, step=200, name="validation-200-multi_scale_flip")
    write_evaluated(tmp_path / "run", cases[0], digests, step=300, name="training-300")
    path = epath.Path(tmp_path / "run")
    names = {
        which: read_run(path, which).path.stem for which in ("newest", "best", "validation-80", "training-300.json")
    }
    assert names == {
        "newest": "validation-100",
        "best": "validation-90",
        "validation-80": "validation-80",
        "training-300.json": "training-300",
    }
    result = path / "evaluation" / "validation-80.json"
    assert read_run(result, "newest").path == result


# ── What is refused or marked ──


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "compare needs runs: give their folders"),
        (["RUNS/base-0", "RUNS/absent"], "RUNS/absent' is neither a folder nor a result: expected the folder of a run"),
        (["RUNS/base-0+RUNS/absent"], "RUNS/absent' is neither a folder nor a result"),
        (["RUNS/none-*"], "RUNS/none-*' matches no run"),
        (["label=RUNS/absent"], "error: 'RUNS/absent' is neither a folder"),
        (["RUNS/base-0+RUNS/base-0"], "base-0: RUNS/base-0 occurs twice"),
        (["RUNS/base-0", "RUNS/fold-0"], "were evaluated on different images: 10 are the same, 10 only in the first and 0 only"),
        (["x=RUNS/base-0+RUNS/fold-0"], "x: RUNS/base-0/evaluation/validation-660.json (20 images) and RUNS/fold-0"),
        (["x=RUNS/base-0+RUNS/fold-0"], "(10 images) have 10 images in common: expected the same images"),
        (["RUNS/base-0", "--result=validation-7"], "--result=validation-7: RUNS/base-0/evaluation holds no such result; it holds"),
        (["RUNS/base-0", "--result=../x"], "holds no such result"),
        (["RUNS/base-0", "--workdir=runs/x"], "--workdir is not a flag of compare"),
        (["RUNS/base-0", "--config.seed=1"], "--config.seed is not a flag of compare"),
        (["RUNS/base-0", "--step=1"], "--step is not a flag of compare"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(runs, arguments, message):
    place = str(runs)
    assert message.replace("RUNS", place) in error_of(call("compare", *(a.replace("RUNS", place) for a in arguments)))


def test_other_classes_are_refused(runs, cases):
    digests = digests_of(range(NUM_IMAGES))
    names = ["class0", "class1", "pole", "class3", "class4"]
    write_evaluated(runs / "other", cases[0], digests, names=names)
    message = error_of(call("compare", runs / "base-0", runs / "other"))
    assert "have other classes ('class2' and 'pole' at place 2): runs can be compared if" in message
    assert str(runs / "base-0" / "evaluation") in message
    write_evaluated(runs / "fewer", cases[0][:, :4, :4], digests)
    assert "have 5 and 4 classes" in error_of(call("compare", runs / "base-0", runs / "fewer"))


def test_results_without_counts_are_compared_without_intervals(runs, cases):
    digests = digests_of(range(NUM_IMAGES))
    own = {"name": "multi_scale_flip", "threshold": 0.3}
    write_evaluated(runs / "no counts", cases[2], digests, has_counts=False, protocol=own)
    done = call("compare", runs / "base-0", runs / "no counts", runs / "new-0")
    assert done.returncode == 0
    command = (
        f"pyrseg evaluate '--workdir={runs / 'no counts'}' --step={STEP} --config.evaluation.protocol=multi_scale_flip "
    )
    assert f"run `{command}--config.evaluation.threshold=0.3`" in done.stdout
    told = next(line for line in done.stdout.splitlines() if "has no counts" in line).split("`")[1]
    arguments = command_line.parse(shlex.split(told)[1:], MODES)
    assert (arguments.flags["workdir"], arguments.flags["step"]) == (str(runs / "no counts"), STEP)
    assert arguments.changes == {"evaluation.protocol": "multi_scale_flip", "evaluation.threshold": 0.3}
    lines = done.stdout.splitlines()
    of_run = [line for line in lines if line.startswith("2 no counts")]
    assert of_run and not [line for line in of_run if "[" in line]
    assert all("[" in line for line in lines if line.startswith("3 new-0"))
    note = next(line for line in lines if "another protocol" in line)
    assert "name multi_scale_flip instead of single, threshold 0.3 instead of 0.5" in note
    write_evaluated(runs / "others", cases[2], digests_of(range(1, NUM_IMAGES + 1)), has_counts=False)
    assert "different images (another fingerprint of the data)" in error_of(
        call("compare", runs / "base-0", runs / "others")
    )
    write_evaluated(runs / "less", cases[2][:5], digests[:5], has_counts=False)
    assert "were evaluated on different images: evaluate" in error_of(call("compare", runs / "base-0", runs / "less"))
    message = error_of(call("compare", f"x={runs / 'fold-0'}+{runs / 'less'}"))
    assert (
        f"less/evaluation/validation-{STEP}.json has no counts of its images, by which folds are recognized: run `pyrseg"
        in message
    )
    done = call("compare", f"x={runs / 'base-0'}+{runs / 'no counts'}")
    assert (
        "x  (2 seeds, mean)" in done.stdout.replace("1 x", "x").replace("  660", "") or "(2 seeds, mean)" in done.stdout
    )


def test_damaged_files_are_named(runs):
    result = runs / "base-0" / "evaluation" / f"validation-{STEP}.json"
    counts = runs / "base-0" / "image_counts" / result.name
    for path, damage, message in (
        (counts, lambda text: text[:-9], "this is not JSON"),
        (counts, lambda text: text.replace("class1", "klass"), "does not belong to"),
        (
            counts,
            lambda text: text.replace("[[0,", "[[0,1", 1),
            "the sums of its counts differ from confusion there; evaluate",
        ),
        (result, lambda text: text.replace('"step"', '"stop"'), "the key step is missing"),
        (
            result,
            lambda text: text.replace('"confusion": [[', '"confusion": [[1, '),
            "confusion does not have one row and one column",
        ),
        (runs / "base-0" / "config.json", lambda _: "[]", "expected an object"),
    ):
        before = path.read_text()
        path.write_text(damage(before))
        done = error_of(call("compare", runs / "base-0", runs / "new-0"))
        assert str(path) in done and message in done
        path.write_text(before)
    (runs / "base-0" / "config.json").unlink()
    assert "config.json cannot be read" in error_of(call("compare", runs / "base-0"))
    assert call("compare", result).returncode == 0
    result.unlink()
    (runs / "new-0" / "evaluation" / result.name).unlink()
    message = error_of(call("compare", runs / "new-0"))
    assert (
        "holds no result validation-STEP.json of the run's own protocol; it is empty; make one with `pyrseg evaluate"
        in message
    )


# ── Files ──


def test_tables_and_plot_are_written_and_never_replaced_silently(runs):
    out = runs / "out"
    arguments = ["compare", runs / "base-0", f"two | seeds={runs}/new-[01]", f"--output={out}"]
    done = call(*arguments)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in out.iterdir()) == [f"comparison{s}" for s in (".json", ".md", ".pdf", ".png")]
    comparison = json.loads((out / "comparison.json").read_text())
    assert comparison["resamples"] == 10_000 and comparison["confidence"] == 0.95
    assert (out / "comparison.md").read_text() == comparison_markdown(comparison)
    assert done.stdout == comparison_table(comparison) + "\n"
    assert Image.open(out / "comparison.png").width == 1760
    before = (out / "comparison.md").read_bytes()
    other = ["compare", runs / "new-0", runs / "base-0", f"--output={out}"]
    assert "comparison.md exists: name another folder with --output, or give --overwrite" in error_of(call(*other))
    assert (out / "comparison.md").read_bytes() == before
    (out / "comparison.pdf").unlink()
    (out / "comparison.pdf").symlink_to(runs / "elsewhere")
    assert "comparison.pdf is a symbolic link, which is not replaced" in error_of(call(*other, "--overwrite"))
    (out / "comparison.pdf").unlink()
    assert call(*other, "--overwrite").returncode == 0
    assert (out / "comparison.md").read_bytes() != before
    assert "is not a folder" in error_of(call(*arguments[:2], f"--output={out / 'comparison.md'}"))


def test_the_table_shows_scores_differences_and_rare_classes(runs):
    comparison = compare(runs / "base-0", runs / "new-0")
    lines = comparison_table(comparison).splitlines()
    assert lines[0].startswith(
        "20 images with 1,800 labeled pixels of 5 classes; percent, with 95 % intervals from 300"
    )
    miou = comparison["experiments"][0]["scores"]["miou"]
    cell = f"{100 * miou['value']:.2f} [{100 * miou['low']:.2f}, {100 * miou['high']:.2f}]"
    assert next(line for line in lines if line.startswith("1 base-0")).split("  ", 1)[1].strip().startswith(cell)
    assert "minus 1 base-0" in lines
    assert [line.split()[0] for line in lines if "(rare)" in line] == ["class2", "class3", "class4", "rarest"]
    difference = comparison["differences"][0]["iou"]["class0"]
    row = next(line for line in lines if line.startswith("class0"))
    assert row.endswith(f"{100 * difference['value']:+.2f} *") == (difference["low"] > 0 or difference["high"] < 0)
    text = comparison_markdown(comparison)
    assert "| **base-0** |" in text and "new-0 minus base-0" in text


def test_hostile_names_stay_in_their_lines(cases, tmp_path):
    names = ["a|b", "x\ny", "*bold*", "$\\frac$", "e"]
    write_evaluated(tmp_path / "run", cases[0], digests_of(range(NUM_IMAGES)), names=names)
    comparison = compare(f"$x^$ | y={tmp_path / 'run'}", tmp_path / "run")
    rows = [line for line in comparison_markdown(comparison).splitlines() if line.startswith(r"| a\|b")]
    assert len(rows) == 1 and rows[0].replace(r"\|", "").count("|") == 7
    assert "x\\ny" in comparison_table(comparison)
    comparison_figure(comparison).savefig(tmp_path / "figure.png")


@pytest.mark.parametrize(("num_experiments", "num_classes", "num_rows"), [(1, 3, 3), (2, 60, 40), (6, 60, 19)])
def test_the_plot_has_room_for_any_number_of_classes(tmp_path, num_experiments, num_classes, num_rows):
    comparison = made_up(num_experiments, num_classes)
    figure = comparison_figure(comparison)
    last = figure.subfigs[-1].axes[0]
    labels = [label.get_text() for label in last.get_yticklabels()]
    assert len(labels) == num_rows and labels[-1] == f"c{num_classes - 1} (rare)"
    assert figure.get_size_inches()[1] < 20
    assert (f"{num_rows} of {num_classes} classes" in figure.subfigs[-1].get_suptitle()) == (num_rows < num_classes)
    if num_experiments > 1:
        largest = max(comparison["classes"], key=lambda name: abs(comparison["differences"][0]["iou"][name]["value"]))
        assert any(label.startswith(largest) for label in labels)


def made_up(num_experiments, num_classes):
    """Make up a comparison, without computing anything."""
    rng = np.random.default_rng(0)
    names = [f"c{i}" for i in range(num_classes)]

    def value():
        middle = float(rng.normal())
        return {"value": middle, "low": middle - 0.1, "high": middle + 0.1}

    def entry(label):
        keys = (*bootstrap.SCORES, "boundary_miou")
        return {"label": label, "minus": "0", "scores": {k: value() for k in keys}, "iou": {n: value() for n in names}}

    more = {"joined": ONE, "runs": [], "level_share": None}
    return {
        "images": 4,
        "labeled_pixels": 100,
        "resamples": 10,
        "confidence": 0.95,
        "classes": {name: {"pixels": num_classes - i, "images": 4} for i, name in enumerate(names)},
        "rarest": names[-3:][::-1],
        "experiments": [entry(str(i)) | more for i in range(num_experiments)],
        "differences": [entry(str(i)) for i in range(1, num_experiments)],
        "notes": [],
    }


def test_a_plot_that_cannot_be_drawn_costs_only_the_plot(runs, monkeypatch):
    from pyrseg_jax.commands import compare as command

    def fail(_):
        raise ValueError("no room")

    monkeypatch.setattr(command, "comparison_figure", fail)
    done = call("compare", runs / "base-0", f"--output={runs / 'out'}")
    assert done.returncode == 0
    assert sorted(path.name for path in (runs / "out").iterdir()) == ["comparison.json", "comparison.md"]


def test_a_comparison_imports_no_jax():
    code = "import sys; import pyrseg_jax.commands.compare; print([n for n in ('jax', 'flax') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
