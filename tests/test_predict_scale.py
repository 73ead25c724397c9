"""`predict` at scale: folders within folders, what is finished stays, several processes, buckets, and every kind of output."""

import contextlib
import json
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import fsspec
import numpy as np
import pytest
from etils import epath
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support.command_line import call, error_of
from support.exports import CLASSES, STRIDES, toy, toy_variables, write_toy

from pyrseg_jax.commands.predict import predict
from pyrseg_jax.data.decode import Masked, decode_label
from pyrseg_jax.data.label_space import ade_layout
from pyrseg_jax.data.resample import upsample_argmax
from pyrseg_jax.distributed import processes
from pyrseg_jax.errors import UserError
from pyrseg_jax.evaluation.views import Protocol
from pyrseg_jax.export.predictor import ExportedPredictor
from pyrseg_jax.prediction import annotations, writing
from pyrseg_jax.prediction.listing import Item, find_items, share_of
from pyrseg_jax.prediction.outputs import OUTPUTS
from pyrseg_jax.prediction.pipeline import Pipeline
from pyrseg_jax.prediction.progress import Progress, duration
from pyrseg_jax.prediction.reading import Loaded
from pyrseg_jax.prediction.writing import Outcome
from pyrseg_jax.reporting import pictures
from pyrseg_jax.run import command_line, signals
from pyrseg_jax.run.model_predictor import ModelPredictor
from pyrseg_jax.run.predictor import Predictor, Segmented, Wants
from pyrseg_jax.shapes.polygons import fill_rings
from pyrseg_jax.shapes.rle import decode_runs, decompress_runs

SPACE = ade_layout(CLASSES)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """An exported model: reading it takes milliseconds."""
    path = tmp_path_factory.mktemp("model") / "toy.zip"
    write_toy(path, sizes=((16, 24),))
    return str(path)


@pytest.fixture
def photos(tmp_path):
    """Nine photographs in three folders, beside hidden files and a link that leads back."""
    rng, root = np.random.default_rng(0), tmp_path / "photos"
    for name in (
        "a.png",
        "b.png",
        "c.jpg",
        "one/a.png",
        "one/b.png",
        "one/two/a.png",
        "one/two/b.png",
        "x/y.png",
        "x/z.png",
    ):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        height, width = rng.integers(17, 40, 2)
        Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(path)
    return root


@pytest.fixture
def segmented(monkeypatch):
    """The images that were segmented, in place of a count of seconds."""
    segment, seen = ExportedPredictor.segment, []

    def remember(self, image):
        seen.append(image.shape[:2])
        return segment(self, image)

    monkeypatch.setattr(ExportedPredictor, "segment", remember)
    return seen


def run(model, photos, out, **arguments):
    predict(None, None, str(photos), str(out), model=model, **arguments)


def results(folder: Path) -> dict[str, bytes]:
    """Return what is in and below a folder, without the manifests."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("manifest"))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for path in sorted(folder.glob("manifest*.jsonl")) for line in path.open()]


# ── Folders ──


def test_folders_are_mirrored(model, photos, tmp_path, caplog):
    (photos / ".hidden").mkdir()
    Image.new("RGB", (8, 8)).save(photos / ".hidden" / "a.png")
    Image.new("RGB", (8, 8)).save(photos / ".b.png")
    (photos / "one" / "back").symlink_to(photos)
    (photos / "one" / "notes.txt").write_text("no image")
    run(model, photos, tmp_path / "out")
    inputs = ["a", "b", "c", "one/a", "one/b", "one/two/a", "one/two/b", "x/y", "x/z"]
    assert set(results(tmp_path / "out")) == {f"{name}{end}" for name in inputs for end in (".png", "_overlay.jpg")}
    assert "1 folder (.hidden), 1 hidden file and 1 .txt file are passed over" in caplog.text
    assert "one/back leads back to a folder above it" in caplog.text


def test_an_output_inside_of_the_input_is_not_an_input(model, photos):
    run(model, photos, photos / "out")
    first = results(photos / "out")
    run(model, photos, photos / "out")
    assert results(photos / "out") == first


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), unique=True), st.integers(1, 9))
def test_the_shares_of_processes_are_a_partition(names, count):
    items = [Item(Path(name), name, name) for name in names]
    shares = [share_of(items, index, count) for index in range(count)]
    assert sorted(item.key for share in shares for item in share) == sorted(names)
    # A file more changes nothing for the others.
    more = [*items, Item(Path("new"), "new\0", "new")]
    assert [share_of(more, i, count)[: len(s)] for i, s in enumerate(shares)] == shares


@pytest.mark.parametrize("count", [2, 4])
def test_several_processes_write_what_one_writes(model, photos, tmp_path, segmented, count):
    run(model, photos, tmp_path / "one")
    del segmented[:]
    for index in range(count):
        run(model, photos, tmp_path / "many", share=(index, count))
    assert results(tmp_path / "many") == results(tmp_path / "one")
    assert len(segmented) == 9 and len(lines(tmp_path / "many")) == 9
    names = {path.name for path in (tmp_path / "many").glob("manifest*")}
    assert names == {f"manifest-{index:05d}-of-{count:05d}.jsonl" for index in range(count)}
    # Another number of processes finds all of it.
    run(model, photos, tmp_path / "many", share=(1, 3))
    run(model, photos, tmp_path / "many")
    assert len(segmented) == 9


# ── What is finished ──


def test_finished_images_are_not_done_again(model, photos, tmp_path, segmented, caplog):
    out = tmp_path / "out"
    run(model, photos, out)
    first, num_lines = results(out), len(lines(out))
    os.utime(photos / "a.png", (1, 1))  # another time, the same content
    caplog.set_level(logging.INFO)
    run(model, photos, out)
    assert len(segmented) == 9 and len(lines(out)) == num_lines == 9
    assert "segmented 9 of 9 images" in caplog.text and "9 of them by an earlier command" in caplog.text
    (out / "one" / "b.png").unlink()
    (out / "x" / "y_overlay.jpg").write_bytes(b"")  # as a disk may leave it
    with pytest.raises(UserError, match="y_overlay.jpg would be replaced"):
        run(model, photos, out)
    run(model, photos, out, overwrite=True)
    assert len(segmented) == 11 and results(out) == first


def test_a_changed_image_is_done_again(model, photos, tmp_path, segmented):
    run(model, photos, tmp_path / "out")
    Image.new("RGB", (30, 20)).save(photos / "b.png")
    run(model, photos, tmp_path / "out")
    assert segmented[9:] == [(20, 30)]
    assert Image.open(tmp_path / "out" / "b.png").size == (30, 20)


def test_other_outputs_are_added_and_other_settings_replace_all(model, photos, tmp_path, segmented, caplog):
    out, other = tmp_path / "out", tmp_path / "other.zip"
    run(model, photos, out, outputs=("color",))
    run(model, photos, out, outputs=("labels",))
    run(model, photos, out, outputs=("color", "labels"))
    assert len(segmented) == 18 and len(results(out)) == 18
    write_toy(other, sizes=((16, 24), (16, 16)))
    caplog.set_level(logging.INFO)
    run(str(other), photos, out, outputs=("labels",))
    assert len(segmented) == 27
    assert "9 images were segmented with other settings (sizes [[16, 24]] → [[16, 24], [16, 16]])" in caplog.text
    assert not list(out.rglob("*_color.png"))  # they would show the earlier prediction


def test_a_line_of_the_manifest_says_how_an_image_was_segmented(model, photos, tmp_path):
    run(model, photos / "a.png", tmp_path / "out")
    (line,) = lines(tmp_path / "out")
    assert line["image"] == "a.png" and line["model"] == model and line["threshold"] == 0.5
    assert line["protocol"] == {"name": "exported", "sizes": [[16, 24]]} and len(line["weights"]) == 16
    assert (line["width"], line["height"]) == Image.open(photos / "a.png").size
    assert line["bytes"] == (photos / "a.png").stat().st_size and len(line["sha256"]) == 64
    assert set(line["outputs"]) == {"a.png", "a_overlay.jpg"} and line["seconds"] > 0 and line["time"]


@pytest.mark.parametrize("seed", range(10))
def test_a_command_that_ends_anywhere_is_finished_by_the_same_command(
    model, photos, tmp_path, segmented, monkeypatch, seed
):
    """As after a kill: the files of one image may be missing while its line is there."""
    run(model, photos, tmp_path / "straight")
    del segmented[:]
    write, left, mutex = writing.write_bytes_atomically, [random.Random(seed).randrange(18)], threading.Lock()

    def end(path, content):
        with mutex:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
        write(path, content)

    monkeypatch.setattr(writing, "write_bytes_atomically", end)
    with pytest.raises(KeyboardInterrupt):
        run(model, photos, tmp_path / "out")
    named = [[tmp_path / "out" / name for name in line["outputs"]] for line in lines(tmp_path / "out")]
    whole = [paths for paths in named if all(path.exists() for path in paths)]
    times = {path: path.stat().st_mtime_ns for paths in whole for path in paths}
    del segmented[:]
    monkeypatch.setattr(writing, "write_bytes_atomically", write)
    run(model, photos, tmp_path / "out")
    assert len(segmented) == 9 - len(whole)
    assert results(tmp_path / "out") == results(tmp_path / "straight")
    assert times == {path: path.stat().st_mtime_ns for path in times}


@pytest.mark.parametrize(("number", "error"), [(signal.SIGTERM, signals.Stopped), (signal.SIGINT, KeyboardInterrupt)])
def test_a_signal_lets_predict_finish_what_it_has_begun(model, photos, tmp_path, segmented, monkeypatch, number, error):
    run(model, photos, tmp_path / "straight")
    del segmented[:]
    segment, asked = ExportedPredictor.segment, signals.Postponed()

    def signal_at_the_third(self, image):
        if len(segmented) == 2:
            asked.number = number
        return segment(self, image)

    with monkeypatch.context() as patched:
        patched.setattr(ExportedPredictor, "segment", signal_at_the_third)
        patched.setattr(signals, "postponing", lambda: contextlib.nullcontext(asked))
        with pytest.raises(error) as raised:
            run(model, photos, tmp_path / "out")
    num_done = len(lines(tmp_path / "out"))
    assert 3 <= num_done < 9 and len(segmented) == num_done
    assert len(results(tmp_path / "out")) == 2 * num_done  # of those that were begun, nothing is missing
    assert f"{num_done} of 9 images are complete" in raised.value.__notes__
    run(model, photos, tmp_path / "out")
    assert len(segmented) == 9 and results(tmp_path / "out") == results(tmp_path / "straight")


@pytest.mark.slow
def test_sigterm_ends_predict_with_status_75_and_the_same_command_continues(model, tmp_path):
    rng, photos, out = np.random.default_rng(0), tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    for i in range(60):
        Image.fromarray(rng.integers(0, 256, (700, 900, 3), np.uint8)).save(photos / f"{i}.png")
    command = [sys.executable, "-m", "pyrseg_jax.main", "predict", f"--model={model}", f"--input={photos}"]
    environment = os.environ | {"XLA_FLAGS": ""}
    process = subprocess.Popen([*command, f"--output={out}"], env=environment, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not (out.is_dir() and list(out.glob("*_overlay.jpg"))):
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 75, stderr
    num_done = len(lines(out))
    assert 0 < num_done < 60
    last = stderr.splitlines()[-1]
    assert last.startswith(
        f"stopped by SIGTERM: {num_done} of 60 images are complete; each file in --output is complete"
    )
    assert {name for line in lines(out) for name in line["outputs"]} == set(results(out))
    assert subprocess.run([*command, f"--output={out}"], env=environment, capture_output=True).returncode == 0
    run(model, photos, tmp_path / "straight")
    assert results(out) == results(tmp_path / "straight") and len(lines(out)) == 60  # nothing twice


def test_two_commands_do_not_write_one_manifest(model, photos, tmp_path, monkeypatch):
    started, go_on = threading.Event(), threading.Event()
    segment = ExportedPredictor.segment

    def wait(self, image):
        started.set()
        go_on.wait(60)
        return segment(self, image)

    monkeypatch.setattr(ExportedPredictor, "segment", wait)
    first = threading.Thread(target=run, args=(model, photos, tmp_path / "out"))
    first.start()
    started.wait(60)
    with pytest.raises(UserError, match="another `predict` is writing to .*manifest.jsonl"):
        run(model, photos, tmp_path / "out", overwrite=True)
    go_on.set()
    first.join()
    assert len(results(tmp_path / "out")) == 18


# ── Outputs ──


@pytest.fixture(scope="module")
def labels():
    """Blobs of three classes with holes in each other, on a fourth that is everywhere."""
    rng = np.random.default_rng(3)
    noise = rng.random((6, 9, 4)).repeat(7, 0).repeat(7, 1)
    labels = noise.argmax(-1).astype(np.uint8)
    for depth, value in enumerate((0, 1, 0, 2)):  # regions within holes of each other
        labels[4 + 4 * depth : 38 - 4 * depth, 5 + 4 * depth : 50 - 4 * depth] = value
    return labels


def test_coco_holds_every_pixel(labels):
    document = json.loads(annotations.coco(labels, SPACE, "a.jpg"))
    found = np.full(labels.shape, 255, np.uint8)
    for annotation in document["annotations"]:
        runs = decompress_runs(annotation["segmentation"]["counts"])
        mask = decode_runs(runs, *annotation["segmentation"]["size"])
        x, y, width, height = annotation["bbox"]
        assert annotation["area"] == mask.sum() == mask[y : y + height, x : x + width].sum()
        found[mask] = SPACE.file_ids.index(annotation["category_id"])
    assert np.array_equal(found, labels)
    assert [category["name"] for category in document["categories"]] == list(CLASSES)


def test_geojson_holds_every_pixel(labels):
    document = json.loads(annotations.geojson(labels, SPACE, "a.jpg"))
    found = np.full(labels.shape, 255, np.uint8)
    for feature in document["features"]:
        rings = [np.array(ring) for ring in feature["geometry"]["coordinates"]]
        assert all(np.array_equal(ring[0], ring[-1]) for ring in rings)
        mask = fill_rings([ring[:-1] for ring in rings], *labels.shape)
        assert feature["properties"]["area_px"] == mask.sum()
        found[mask] = CLASSES.index(feature["properties"]["class"])
    assert np.array_equal(found, labels)


def test_labelme_painted_in_order_gives_every_pixel(labels):
    document = json.loads(annotations.labelme(labels, SPACE, "../a.jpg"))
    found = np.full(labels.shape, 255, np.uint8)
    for shape in document["shapes"]:
        mask = fill_rings([np.array(shape["points"])], *labels.shape)
        found[mask] = CLASSES.index(shape["label"])
    assert np.array_equal(found, labels)
    assert (document["imageHeight"], document["imageWidth"]) == labels.shape


def test_every_output_is_written_and_fits_the_labels(model, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "pyramid_figure", lambda *_, **__: Image.new("RGB", (8, 8)))
    out = tmp_path / "out"
    outputs = tuple(name for name in OUTPUTS if name != "disagreement")  # which an exported model does not have
    run(model, photos / "one", out, outputs=outputs)
    suffixes = {OUTPUTS[name].suffix for name in outputs if name != "geotiff"}
    assert set(results(out)) == {f"{n}{suffix}" for n in ("a", "b", "two/a", "two/b") for suffix in suffixes}
    labels = decode_label((out / "two" / "a.png").read_bytes(), "a.png", SPACE)
    color = np.asarray(Image.open(out / "two" / "a_color.png"))
    assert {tuple(c) for c in color[labels == labels[0, 0]]} == {tuple(color[0, 0])}
    confidence = np.asarray(Image.open(out / "two" / "a_confidence.png"))
    assert confidence.shape == labels.shape and confidence.dtype == np.uint8
    assert confidence.min() >= 255 // len(CLASSES)
    place = json.loads((out / "two" / "a.json").read_text())["imagePath"]
    assert (out / "two" / place).resolve() == photos / "one" / "two" / "a.png"


def test_no_pyramid_is_drawn_unless_it_is_asked_for(model, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "pyramid_figure", lambda *_, **__: pytest.fail("a pyramid was drawn"))
    run(model, photos / "a.png", tmp_path / "out")
    assert set(results(tmp_path / "out")) == {"a.png", "a_overlay.jpg"}


def test_names_of_outputs_are_those_of_the_command_line():
    assert tuple(OUTPUTS) == command_line.OUTPUTS
    assert command_line.FLAGS["outputs"].read("labels, color,labels") == ("labels", "color")
    with pytest.raises(ValueError, match=r"overlays is not one of them: did you mean overlay\?"):
        command_line.FLAGS["outputs"].read("overlays")


# ── The model of a run ──


@pytest.fixture(scope="module")
def predictors():
    """The same network with batches of one image and of three."""
    network, variables = toy(), toy_variables()
    protocol = Protocol(stride=STRIDES[0])
    one, three = (ModelPredictor(network, variables, protocol, 0.5, SPACE, size) for size in (1, 3))
    three.batch_size = 3  # as on an accelerator
    return one, three


def images_of(sizes, seed=0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes]


def test_labels_are_those_of_a_single_image_and_confidence_is_their_probability(predictors):
    one, three = predictors
    images = images_of([(24, 33), (25, 31), (23, 32)])
    assert len({three.group_of(*image.shape[:2]) for image in images}) == 1
    expected = [one.segment(image) for image in images]
    found = three.start(images, Wants(has_confidence=True))()
    for image, result, segmented in zip(images, expected, found, strict=True):
        assert np.array_equal(one.start([image], Wants())()[0].labels, result.labels)
        assert (segmented.labels == result.labels).mean() > 0.995  # of a batch, the last bits may differ
        assert segmented.confidence is not None and segmented.confidence.shape == result.labels.shape
        assert np.array_equal(upsample_argmax(result.probs, result.labels.shape), result.labels)
        best = one.start([image], Wants(has_confidence=True))()[0].confidence
        assert best is not None and best.min() > 0
    with pytest.raises(UserError, match="programs for a few sizes"):
        Predictor.windows(one, has_confidence=False)


def test_programs_for_ever_new_sizes_do_not_fill_the_memory(predictors, monkeypatch):
    monkeypatch.setattr("pyrseg_jax.run.model_predictor.MAX_PROGRAMS", 3)
    network, variables = toy(), toy_variables()
    predictor = ModelPredictor(network, variables, Protocol(stride=STRIDES[0]), 0.5, SPACE)
    counts = []
    for side in range(16, 64, 8):
        predictor.start(images_of([(side, 16)]), Wants())()
        counts.append(predictor.num_programs())
    assert max(counts) <= 4 and len(counts) == 6


class Counting(Predictor):
    """Gives each image a label map of zeros, and counts the images that are in work."""

    def __init__(self, batch_size):
        super().__init__(SPACE, 0.5, {})
        self.batch_size, self.batches = batch_size, []

    def segment(self, image):
        raise AssertionError("images come in batches")

    def start(self, images, wants):
        self.batches.append([image.shape[:2] for image in images])
        return lambda: [Segmented(image, np.zeros(image.shape[:2], np.uint8)) for image in images]


@given(st.lists(st.sampled_from(["small", "large", "broken"]), max_size=40), st.integers(1, 5))
def test_every_image_has_one_outcome_and_few_are_in_memory(kinds, batch_size):
    items = [Item(Path(str(i)), str(i), str(i)) for i in range(len(kinds))]
    held, most, mutex = set(), [0], threading.Lock()

    def load(item):
        kind = kinds[int(item.key)]
        if kind == "broken":
            return Outcome(item, ("broken",))
        with mutex:
            held.add(item.key)
            most[0] = max(most[0], len(held))
        shape = (4, 4, 3) if kind == "small" else (8, 4, 3)
        return Loaded(item, Masked(np.zeros(shape, np.uint8), None), None, None, None, 0.0)  # pyright: ignore

    def store(loaded, segmented):
        assert segmented.labels.shape == loaded.masked.image.shape[:2]
        with mutex:
            held.discard(loaded.item.key)
        return Outcome(loaded.item)

    predictor = Counting(batch_size)
    outcomes = list(Pipeline(predictor, Wants(), load, store).run(items))
    assert sorted(outcome.item.key for outcome in outcomes) == sorted(item.key for item in items)
    assert sum(bool(outcome.problems) for outcome in outcomes) == kinds.count("broken")
    assert all(len(set(batch)) == 1 and len(batch) <= batch_size for batch in predictor.batches)
    threads = os.cpu_count() or 1
    assert not held and most[0] <= 2 * batch_size + 2 * threads + 1 + 4 * batch_size + 3 * threads


# ── Several processes, buckets, progress ──


@pytest.mark.parametrize(
    ("environment", "arguments", "expected"),
    [
        ({}, ("auto", None, None), (0, 1)),
        ({}, ("auto", 4, 2), (2, 4)),
        ({"SLURM_NTASKS": "8", "SLURM_PROCID": "3", "SLURM_STEP_NODELIST": "n"}, ("auto", None, None), (3, 8)),
        ({"SLURM_NTASKS": "8", "SLURM_PROCID": "3", "SLURM_STEP_NODELIST": "n"}, ("off", None, None), (0, 1)),
        ({"TPU_WORKER_HOSTNAMES": "a,b,c", "TPU_WORKER_ID": "2"}, ("auto", None, None), (2, 3)),
        ({"TPU_WORKER_HOSTNAMES": "a,b,c", "TPU_WORKER_ID": "2"}, ("auto", 5, 0), (0, 5)),
    ],
)
def test_the_share_of_a_process_comes_from_its_environment(monkeypatch, environment, arguments, expected):
    for name in ("SLURM_NTASKS", "SLURM_PROCID", "SLURM_STEP_NODELIST", "TPU_WORKER_HOSTNAMES", "TPU_WORKER_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert processes.share(*arguments) == expected


def test_wrong_flags_are_one_clear_line(model, photos, tmp_path):
    command = ["predict", f"--model={model}", f"--input={photos}", f"--output={tmp_path / 'out'}"]
    assert "--process_id is missing" in error_of(call(*command, "--num_processes=2"))
    assert "--process_id=2: expected 0 … 1" in error_of(call(*command, "--num_processes=2", "--process_id=2"))
    assert "--workdir and --model exclude each other" in error_of(call(*command, "--workdir=run"))
    assert "--config.evaluation.threshold and --model" in error_of(call(*command, "--config.evaluation.threshold=0.3"))
    assert "--fps=0: expected a number above 0" in error_of(call(*command, "--fps=0"))
    assert "--window=8: expected an integer, at least 32" in error_of(call(*command, "--window=8"))
    assert "it cannot predict in windows" in error_of(call(*command, "--window=64"))
    done = call(*command, "--num_processes=2", "--process_id=1", "--outputs=labels")
    assert done.returncode == 0 and len(results(tmp_path / "out")) < 9


@pytest.fixture
def bucket(monkeypatch):
    """Remote storage, simulated in memory: code that reads or writes it as if it were a disk fails."""
    memory = fsspec.filesystem("memory")
    monkeypatch.setattr(type(epath.backend.fsspec_backend), "fs", lambda self, path: memory)
    yield "gs://bucket"
    memory.store.clear()


def test_predictions_go_from_and_to_remote_storage(model, photos, tmp_path, bucket, segmented):
    run(model, photos, tmp_path / "out")
    for path in photos.rglob("*.*g"):
        epath.Path(f"{bucket}/photos/{path.relative_to(photos)}").write_bytes(path.read_bytes())
    assert len(find_items(epath.Path(f"{bucket}/photos")).items) == 9
    run(model, f"{bucket}/photos", f"{bucket}/out")
    for name, content in results(tmp_path / "out").items():
        assert epath.Path(f"{bucket}/out/{name}").read_bytes() == content, name
    listed = epath.Path(f"{bucket}/out/manifest.jsonl").read_text().splitlines()
    assert len(listed) == 9 and len(segmented) == 18
    run(model, f"{bucket}/photos", f"{bucket}/out")
    assert len(segmented) == 18
    epath.Path(f"{bucket}/out/manifest.jsonl").unlink()  # as if it had not been written before a kill
    run(model, f"{bucket}/photos", f"{bucket}/out")
    epath.Path(f"{bucket}/out/manifest.jsonl").unlink()
    epath.Path(f"{bucket}/out/a.png").write_bytes(b"mine")
    with pytest.raises(UserError, match="1 of 9 images .*a.png has appeared in the meantime"):
        run(model, f"{bucket}/photos", f"{bucket}/out")
    assert epath.Path(f"{bucket}/out/a.png").read_bytes() == b"mine"


def test_progress_says_rate_and_time_left(caplog, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    caplog.set_level(logging.INFO)
    with Progress(1000) as progress:
        for _ in range(100):
            progress.add(is_earlier=True)
        for _ in range(100):
            clock[0] += 0.5
            progress.add()
    assert "160 of 1,000 images; 2 images per second; 7 min 0 s left" in caplog.text
    assert [duration(s) for s in (3.4, 267, 12000)] == ["3 s", "4 min 27 s", "3 h 20 min"]
