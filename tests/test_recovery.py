"""Recovery from damaged checkpoints, signals, full disks, stalls, and a second training in the same workdir."""

import contextlib
import errno
import functools
import json
import logging
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from etils import epath
from hypothesis import given
from hypothesis import strategies as st
from support import killed_runs
from support.full_disk import files_up_to
from support.runs import tiny_config
from support.trees import assert_trees_equal

from pyrseg_jax.data.label_space import ade_layout
from pyrseg_jax.distributed import mesh as mesh_lib
from pyrseg_jax.errors import UserError
from pyrseg_jax.reporting.logbook import Logbook
from pyrseg_jax.reporting.scalars import Scalars
from pyrseg_jax.run.results import Naming
from pyrseg_jax.run.workdir import Workdir
from pyrseg_jax.storage import lock
from pyrseg_jax.storage.paths import local_folder
from pyrseg_jax.training import checkpoint, stalls
from pyrseg_jax.training.checkpoint import Checkpoints, abstract_on
from pyrseg_jax.training.checksums import checksums, differing
from pyrseg_jax.training.preemption import Phase, Preempted, Preemption
from pyrseg_jax.training.step import initial_state

ROOT = Path(__file__).parents[1]

# --- checksums


def arrays(rng):
    return {
        "float": jnp.asarray(rng.normal(size=(16, 33)), jnp.float32),
        "half": jnp.asarray(rng.normal(size=(5, 8)), jnp.bfloat16),
        "count": jnp.int32(7),
        "bool": jnp.asarray([True, False, True]),
    }


def test_a_checksum_changes_with_any_bit(rng):
    whole = np.asarray(rng.normal(size=(3, 4)), np.float32)
    expected = checksums({"a": jnp.asarray(whole)})
    for bit in range(whole.nbytes * 8):
        flipped = np.frombuffer(whole.tobytes(), np.uint8).copy()
        flipped[bit // 8] ^= 1 << bit % 8
        changed = jax.device_put(flipped.view(np.int32).reshape(whole.shape))
        assert differing({"a": changed}, expected) == ["a"], bit
    # The same bits viewed as another type have the same checksum, so the loop above compares like with like.
    assert differing({"a": jax.device_put(whole.view(np.int32))}, expected) == []


@pytest.mark.parametrize("what", ["exchanged", "zeroed", "shifted", "two signs"])
def test_a_checksum_changes_with_blocks(rng, what):
    whole = np.asarray(rng.normal(size=(64, 8)), np.float32)
    changed = whole.copy()
    if what == "exchanged":
        changed[:16], changed[16:32] = whole[16:32], whole[:16]
    elif what == "zeroed":
        changed[8:24] = 0
    elif what == "shifted":
        changed = np.roll(changed, 1)
    else:
        changed[3, 3] *= -1
        changed[40, 1] *= -1
    assert differing({"a": jnp.asarray(changed)}, checksums({"a": jnp.asarray(whole)})) == ["a"]


def test_a_checksum_is_that_of_the_bits_on_any_mesh(rng):
    tree = arrays(rng)
    assert len(set(checksums(tree).values())) == len(tree)
    for mesh in (mesh_lib.make_mesh(data=1), mesh_lib.make_mesh(data=4), mesh_lib.make_mesh(data=2, spatial=2)):
        sharding = mesh_lib.state_sharding(mesh, {"float": jnp.zeros((4096, 64))}, is_sharded=True)["float"]
        placed = {name: jax.device_put(array, mesh_lib.replicated(mesh)) for name, array in tree.items()}
        placed["float"] = jax.device_put(tree["float"], sharding)
        assert checksums(placed) == checksums(tree)


# --- checkpoints


def small_state(step, rng=None):
    rng = rng or np.random.default_rng(step)
    layer = {"kernel": jnp.asarray(rng.normal(size=(3, 3, 4, 8)), jnp.float32), "bias": jnp.zeros(8)}
    variables = {"params": {"layer": layer}, "batch_stats": {"layer": {"mean": jnp.ones(8)}}}
    return initial_state(variables, optax.sgd(0.1, momentum=0.9)).replace(step=jnp.int32(step))


def replicated_abstract(num_devices=1):
    return abstract_on(small_state(0), mesh_lib.replicated(mesh_lib.make_mesh(data=num_devices)))


def write_two(directory):
    checkpoints = Checkpoints(directory)
    for step in (2, 4):
        checkpoints.save(step, small_state(step))
    checkpoints.wait()
    checkpoints.close()


def restore(directory, abstract=None):
    checkpoints = Checkpoints(directory, is_reader=True)
    try:
        return checkpoints.restore(abstract or replicated_abstract())
    finally:
        checkpoints.close()


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    directory = tmp_path_factory.mktemp("two") / "checkpoints"
    write_two(directory)
    return directory


def test_the_state_comes_back_on_another_mesh_and_its_variables_alone(two):
    assert_trees_equal(restore(two, replicated_abstract(4)), small_state(4))
    checkpoints = Checkpoints(two, is_reader=True)
    mesh = mesh_lib.make_mesh(data=2)
    step, variables = checkpoints.restore_variables(abstract_on(small_state(0).variables, mesh_lib.replicated(mesh)), 2)
    checkpoints.close()
    assert step == 2
    assert_trees_equal(variables, small_state(2).variables)


def test_variables_are_read_without_the_optimizers_state(tmp_path, two):
    directory = copy_of(two, tmp_path)
    for file in (directory / "4" / "training").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    checkpoints = Checkpoints(directory, is_reader=True)
    abstract = abstract_on(small_state(0).variables, mesh_lib.replicated(mesh_lib.make_mesh(data=1)))
    assert checkpoints.restore_variables(abstract)[0] == 4
    assert int(checkpoints.restore(replicated_abstract()).step) == 2
    checkpoints.close()


def copy_of(directory, place):
    target = place / "checkpoints"
    target.mkdir(parents=True)
    for file in directory.rglob("*"):
        copy = target / file.relative_to(directory)
        if file.is_file():
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())
        else:
            copy.mkdir(parents=True, exist_ok=True)
    return target


def data_files(directory):
    return sorted(f for f in directory.rglob("*") if f.is_file() and f.parent.name == "d")


@pytest.mark.parametrize("what", ["emptied", "truncated", "removed", "bit"])
def test_a_damaged_file_is_reported_and_the_checkpoint_before_is_used(tmp_path, two, caplog, what):
    """Damages the files that hold arrays and checksums; `benchmarks/damage.py` tries all files of a run."""
    newest = two / "4"
    for number, file in enumerate([*data_files(newest), newest / "about" / "metadata"]):
        directory = copy_of(two, tmp_path / str(number))
        damage(directory / file.relative_to(two), what)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            found = restore(directory)
        assert_trees_equal(found, small_state(int(found.step)))
        is_reported = "checkpoint 4 in" in caplog.text
        assert int(found.step) == (2 if is_reported else 4)
        # Orbax writes one or two small files that restoring does not read; damage to any other file must be reported.
        assert is_reported or file.stat().st_size < 600, file


def damage(file, what):
    content = bytearray(file.read_bytes())
    if what == "emptied":
        content = b""
    elif what == "truncated":
        content = content[: len(content) // 2]
    elif what == "bit":
        content[len(content) // 2] ^= 4
    file.write_bytes(content)
    if what == "removed":
        file.unlink()


def test_an_array_that_changed_on_disk_is_named(tmp_path, monkeypatch, caplog):
    """Simulates damage that TensorStore does not notice: the state is saved with the checksums of another state."""
    right = checkpoint.checksums
    checkpoints = Checkpoints(tmp_path / "run")
    checkpoints.save(2, small_state(2))

    def of_flipped(tree):
        if "params" in tree:
            tree = jax.tree.map(lambda x: x, tree)
            layer = tree["params"]["layer"]
            layer["bias"] = layer["bias"].at[3].set(-0.0)
        return right(tree)

    monkeypatch.setattr(checkpoint, "checksums", of_flipped)
    checkpoints.save(4, small_state(4))
    checkpoints.wait()
    assert int(checkpoints.restore(replicated_abstract()).step) == 2
    assert "checkpoint 4" in caplog.text
    assert "variables: the bits of params/layer/bias are not those that were saved" in caplog.text
    with pytest.raises(UserError, match=r"no checkpoint can be read \(tried 4\)"):
        checkpoints.restore(replicated_abstract(), step=4)
    checkpoints.close()


def test_if_one_process_cannot_read_a_checkpoint_all_use_the_one_before(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=1"}
    started = [
        subprocess.Popen(
            [sys.executable, "tests/support/damage_of_one.py", str(process), port, str(tmp_path / "run")],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in range(2)
    ]
    try:
        said = [process.communicate(timeout=120) for process in started]
    finally:
        for process in started:
            process.kill()
    for process, (out, err) in zip(started, said, strict=True):
        assert process.returncode == 0, err
        assert "restored 2" in out
        assert re.search(r"checkpoint 4 in .* cannot be read", err), err


def test_the_best_is_known_after_a_restart_and_forgotten_with_its_step(tmp_path):
    checkpoints = Checkpoints(tmp_path / "run", keep_last=1)
    for step, miou in ((1, 0.3), (2, 0.8), (3, 0.4)):
        checkpoints.save(step, small_state(step))
        checkpoints.score(step, miou)
    checkpoints.close()
    checkpoints = Checkpoints(tmp_path / "run", keep_last=1)
    assert checkpoints.is_scored(2)
    checkpoints.save(4, small_state(4))
    checkpoints.wait()
    assert checkpoints.steps() == [2, 4]
    checkpoints.set_aside_after(1)
    assert not checkpoints.is_scored(2)
    checkpoints.close()


def test_a_checkpoint_is_not_restored_under_other_class_names(tmp_path):
    """A flipped bit in the classes.json of a run would otherwise rename a class."""
    checkpoints = Checkpoints(tmp_path / "run", about={"classes": ("sky", "road")})
    checkpoints.save(2, small_state(2))
    checkpoints.close()
    for names, message in (
        (("sky", "roaf"), "it was trained with 'road' where the run's classes.json now has 'roaf'"),
        (("sky", "road", "car"), "it was trained with '2 classes' where the run's classes.json now has '3 classes'"),
    ):
        checkpoints = Checkpoints(tmp_path / "run", is_reader=True, about={"classes": names})
        with pytest.raises(UserError, match=message):
            checkpoints.restore(replicated_abstract())
    for about in ({"classes": ("sky", "road")}, None):
        checkpoints = Checkpoints(tmp_path / "run", is_reader=True, about=about)
        assert int(checkpoints.restore(replicated_abstract()).step) == 2


def test_a_full_disk_gives_one_line_and_leaves_the_checkpoints_before(tmp_path):
    """Simulates the full disk with a limit on the size of this process's files."""
    checkpoints = Checkpoints(tmp_path / "run")
    checkpoints.save(2, small_state(2))
    checkpoints.wait()
    large = small_state(4)
    large.params["layer"]["kernel"] = jnp.asarray(np.random.default_rng(0).normal(size=(400, 400)), jnp.float32)
    with files_up_to(100_000):
        checkpoints.save(4, large)
        with pytest.raises(UserError, match="a checkpoint could not be written .*those before it are intact"):
            for _ in range(100):  # as the trainer does, because the checkpoint is written in the background
                checkpoints.check()
                time.sleep(0.1)
        checkpoints.close()
    assert int(restore(tmp_path / "run").step) == 2


# --- signals


def test_a_signal_while_training_waits_for_the_step_and_otherwise_ends_at_once():
    with Preemption() as preemption:
        preemption.phase = Phase.TRAINING
        assert not preemption.reached(1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert preemption.reached(1)
        with pytest.raises(Preempted), preemption.evaluating():
            pytest.fail("an evaluation was begun")
    with Preemption() as preemption:
        preemption.phase = Phase.TRAINING
        with pytest.raises(Preempted), preemption.evaluating():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        assert preemption.phase is Phase.TRAINING
    with Preemption(), pytest.raises(Preempted):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_signal_while_restoring_does_not_count_as_damage(two, monkeypatch):
    """Otherwise the run would set aside the checkpoint that it was reading."""
    restore_arrays, folders = ocp.StandardCheckpointHandler.restore, []

    def interrupted(handler, folder, *args, **kwargs):
        folders.append(folder)
        os.kill(os.getpid(), signal.SIGTERM)
        return restore_arrays(handler, folder, *args, **kwargs)

    monkeypatch.setattr(ocp.StandardCheckpointHandler, "restore", interrupted)
    with Preemption(), pytest.raises(Preempted):
        restore(two)
    assert [folder.parent.name for folder in folders] == ["4"]


@pytest.mark.parametrize("phase", [Phase.STARTING, Phase.EVALUATING])
def test_a_long_compilation_does_not_delay_the_exit(phase):
    """Compiles the training step, or an evaluation whose state is on disk 6 s after the signal."""
    program = (
        "import hashlib, os, threading, time\n"
        "from pyrseg_jax.training.preemption import Phase, Preemption\n"
        "with Preemption() as preemption:\n"
        f"    preemption.phase, end = {phase}, time.monotonic() + 6.5\n"
        "    if preemption.phase is Phase.EVALUATING:\n"
        "        preemption.is_written = lambda: time.monotonic() > end and not print('written', flush=True)\n"
        "    threading.Timer(0.5, lambda: os.kill(os.getpid(), 15)).start()\n"
        "    hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)\n"  # no Python handler runs inside of this call
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 75
    assert done.stderr.startswith("preempted: ")
    assert done.stdout == ("written\n" if phase is Phase.EVALUATING else "")


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    place = tmp_path_factory.mktemp("kills")
    killed_runs.write_images(place / "data", 6, 3)
    run = killed_runs.Run(place / "data", place / "straight", SHORT)
    run.finish()
    return run, place


SHORT = {"training.steps": 60, "training.save_every": 4, "training.evaluate_every": 4}
# The smallest network, so that each start traces and compiles less.
SHORT |= {"model.backbone": "resnet_tiny", "model.context": "none", "model.strides": "(8, 4)"}
# Everything that a step can do and remember, and an end after the third evaluation, since no loss improves by that much.
SHORT |= {
    "optimizer.name": "adamw",
    "optimizer.clip_norm": 1.0,
    "optimizer.ema": 0.9,
    "optimizer.freeze": "backbone/stem*",
}
SHORT |= {"training.best_metric": "loss", "training.patience": 2, "training.min_delta": 1000.0}
LAST = 12


def test_a_killed_run_ends_with_the_same_bits(straight):
    run, place = straight
    killed = killed_runs.Run(place / "data", place / "killed", SHORT)
    hit = killed_runs.disturb(killed, ("save", "evaluation"), 10, signal.SIGKILL)
    assert [status for _, status, _ in hit] == [-signal.SIGKILL] * 2
    assert killed_runs.differences(killed, run) == []
    lines = killed.records()["metrics.jsonl"]
    assert [line["step"] for line in lines] == list(range(1, LAST + 1))
    assert lines[-1]["stopped"].startswith("loss did not improve by more than 1000 in 2 evaluations (patience=2)")
    for each in (killed, run):
        assert json.loads((each.workdir / "finished").read_text()) == {"step": LAST, "reason": lines[-1]["stopped"]}


@pytest.mark.slow
def test_a_preempted_run_is_saved_and_ends_with_the_same_bits(straight):
    run, place = straight
    preempted = killed_runs.Run(place / "data", place / "preempted", SHORT | {"training.save_every": 1000})
    status, last = preempted.kill("evaluation", 10, random.Random(0), signal.SIGTERM)
    assert status == 75
    assert last.startswith("preempted: ")
    assert [e.name for e in (preempted.workdir / "checkpoints").iterdir() if e.is_dir()] == ["4"]
    preempted.finish()
    assert killed_runs.differences(preempted, run) == []


# --- one training at a time


def test_a_second_training_is_refused_with_who_holds_the_folder(tmp_path):
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom pyrseg_jax.storage.lock import locked\n"
        f"with locked(Path({str(tmp_path / 'lock')!r})):\n    print('held', flush=True)\n    time.sleep(60)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    message = rf"is being trained in by process {holder.pid} on .* since 20"
    with pytest.raises(UserError, match=message), lock.locked(tmp_path / "lock"):
        pytest.fail("two hold one lock")
    holder.kill()
    holder.wait()
    with lock.locked(tmp_path / "lock"):  # the lock file of a dead process locks nothing
        assert json.loads((tmp_path / "lock").read_text())["process"] == os.getpid()


# --- stalls


def test_a_stall_is_reported_with_stacks_and_an_evaluation_is_not_a_stall(tmp_path, caplog, capfd):
    with stalls.StallWatch(0.2, tmp_path / "stalls.log") as watch:
        with watch.watching("waiting for the data of step 3"):
            time.sleep(0.05)
        time.sleep(0.6)
        assert not caplog.text
        with watch.watching("computing step 3", is_first=True):
            time.sleep(0.6)
        assert not caplog.text
        with watch.watching("waiting for the data of step 4"):
            time.sleep(0.35)
    assert caplog.text.count("stalled: waiting for the data of step 4") == 1
    written = (tmp_path / "stalls.log").read_text()
    assert "test_a_stall_is_reported" in written
    assert "waiting for the data of step 4" in written
    assert "test_a_stall_is_reported" in capfd.readouterr().err


# --- remote storage


@pytest.fixture
def remote(monkeypatch):
    """Remote storage, simulated in memory: code that writes to it as if to a local disk fails."""
    memory = fsspec.filesystem("memory")
    monkeypatch.setattr(type(epath.backend.fsspec_backend), "fs", lambda self, path: memory)
    yield "gs://remote/run"
    memory.store.clear()


def test_a_run_in_remote_storage_is_written_and_read_again(remote, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = Workdir(remote)
    assert not run.has_run()
    with run.lock():
        run.open_for_training(tiny_config(), ade_layout(("sky", "ground")), "random")
    assert Workdir(remote).read_config() == tiny_config()
    assert Workdir(remote).read_label_space().names == ("sky", "ground")
    assert Workdir(remote).read_initialization() == "random"
    for step in (4, 6):
        data = {"name": "folder", "split": "validation", "fingerprint": "a" * 64}
        result = {
            "miou": 0.5,
            "confusion": [[1]],
            "images": 1,
            "step": step,
            "protocol": {"name": "single"},
            "data": data,
        }
        run.results.write(result, Naming("single", "folder", is_own_protocol=True, is_own_data=True))
    run.results.drop_after(4)
    assert [file.name for file in (run.path / "evaluation").iterdir()] == ["validation-4.json"]
    for first_step in (0, 2):
        logbook = Logbook(run.path, 10, 4, first_step=first_step)
        for step in range(first_step + 1, first_step + 4):
            logbook.write_step(step, {"loss": 1.0, "images_per_second": 1.0, "data_wait_share": 0.0})
        logbook.sync()
        lines = [json.loads(line)["step"] for line in (run.path / "metrics.jsonl").read_text().splitlines()]
        assert lines == list(range(1, first_step + 4))
        logbook.close()
    assert list((run.path / "tensorboard").iterdir())
    with local_folder(run.figures) as place:
        (place / "a.png").write_bytes(b"picture")
    assert (run.figures / "a.png").read_bytes() == b"picture"
    assert run.stalls(0) is None
    assert not list(tmp_path.iterdir())


# --- the record


def test_lines_of_later_steps_and_truncated_lines_are_removed(tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(
        b'{"step": 1}\n{"step": 2}\n{"step": "2"}\n{"step": 2}\n{"step": 3}\n{"step": 4, "l\xc3'
    )
    logbook = Logbook(tmp_path, 10, 4, first_step=2)
    logbook.write_step(3, {"loss": 1.0, "images_per_second": 1.0, "data_wait_share": 0.0})
    logbook.close()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3]


LINES = st.one_of(
    st.builds(lambda step, loss: json.dumps({"step": step, "loss": loss}).encode(), st.integers(0, 9), st.floats(0, 1)),
    st.sampled_from(
        [b"", b"{", b"[1]", b"7", b'{"step": "2"}', b'{"step": true}', b'{"step": 2.0}', b"[" * 9_999, b"\xff"]
    ),
    st.binary(max_size=9).filter(lambda line: not set(line) & set(b"\r\n")),
)


@given(st.lists(LINES, max_size=9), st.integers(0, 9))
def test_a_resumed_run_keeps_the_good_lines_and_names_the_damaged_ones(tmp_path_factory, lines, first_step):
    folder = tmp_path_factory.mktemp("run")
    (folder / "metrics.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    good = [line for line in lines if line.startswith(b'{"step": ') and b"loss" in line]
    with capture("pyrseg_jax.reporting.metrics_file") as said:
        Logbook(folder, 10, 4, first_step=first_step).close()
    expected = {json.loads(line)["step"]: line for line in good if json.loads(line)["step"] <= first_step}
    assert (folder / "metrics.jsonl").read_bytes().splitlines() == list(expected.values())
    damaged = [number for number, line in enumerate(lines, 1) if line not in good]
    if damaged:
        assert f"metrics.jsonl: left out {len(damaged)} damaged lines ({damaged[0]}" in said[0]
    else:
        assert not any("damaged" in line for line in said)
    num_later = sum(json.loads(line)["step"] > first_step for line in good)
    assert bool(num_later) == any(f"removed {num_later} lines of steps after {first_step}" in line for line in said)


@contextlib.contextmanager
def capture(name):
    handler, said = logging.Handler(), []
    handler.emit = lambda record: said.append(record.getMessage())
    logging.getLogger(name).addHandler(handler)
    try:
        yield said
    finally:
        logging.getLogger(name).removeHandler(handler)


@pytest.mark.parametrize(
    "name", ["metrics.jsonl", "environment.json", "classes.json", "figures/street.png", "checkpoints/1/x"]
)
def test_a_folder_that_holds_such_files_but_no_run_is_refused(tmp_path, name):
    folder = tmp_path / "project"
    (folder / name).parent.mkdir(parents=True)
    (folder / name).write_text("my own")
    with pytest.raises(UserError, match=f"project holds {name.split('/')[0]}, but no config.json"):
        Workdir(str(folder)).open_for_training(tiny_config(), ade_layout(("sky", "post")), "random")
    assert [path.name for path in folder.rglob("*") if path.is_file()] == [Path(name).name]
    assert (folder / name).read_text() == "my own"


def test_empty_folders_and_other_files_are_no_hindrance(tmp_path):
    for name in ("figures", "checkpoints", "photos"):
        (tmp_path / name).mkdir()
    (tmp_path / "photos" / "street.jpg").write_text("my own")
    workdir = Workdir(str(tmp_path))
    workdir.open_for_training(tiny_config(), ade_layout(("sky", "post")), "random")
    assert workdir.has_run() and workdir.read_label_space().names == ("sky", "post")
    assert (tmp_path / "photos" / "street.jpg").read_text() == "my own"


def test_what_a_training_without_its_checkpoints_removes_is_named(tmp_path, caplog):
    (tmp_path / "metrics.jsonl").write_text('{"step": 2}\n{"step": 4}\n')
    Logbook(tmp_path, 8, 1).close()
    assert "removed 2 lines of steps after 0, which will be trained again" in caplog.text


def test_a_checkpoint_that_was_set_aside_before_stays(tmp_path, two):
    folder = copy_of(two, tmp_path)
    (folder / "damaged-4").mkdir()
    (folder / "damaged-4" / "kept").write_text("an earlier one")
    checkpoints = Checkpoints(folder)
    checkpoints.set_aside_after(2)
    checkpoints.close()
    assert (folder / "damaged-4" / "kept").read_text() == "an earlier one"
    assert (folder / "damaged-4-2" / "_CHECKPOINT_METADATA").is_file()


def test_a_named_pipe_among_the_checkpoints_is_named_and_not_waited_for(tmp_path, two):
    directory = copy_of(two, tmp_path)
    metadata = directory / "4" / "_CHECKPOINT_METADATA"
    metadata.unlink()
    os.mkfifo(metadata)
    with pytest.raises(
        UserError, match="_CHECKPOINT_METADATA is a named pipe: expected a file of a checkpoint; remove it"
    ):
        restore(directory)


@pytest.mark.parametrize(
    "text",
    ["[" * 50_000, "9" * 9_999, "[]", "7", *(f'{{"commit_timestamp_nsecs": {v}}}' for v in ("[]", "null", 10**30))],
)
@pytest.mark.parametrize("is_reader", [True, False])
def test_damaged_metadata_of_a_checkpoint_is_passed_over_or_named(tmp_path, two, text, is_reader):
    folder = copy_of(two, tmp_path)
    (folder / "4" / "_CHECKPOINT_METADATA").write_text(text)
    try:
        checkpoints = Checkpoints(folder, is_reader=is_reader)
    except UserError as error:
        assert str(error).startswith(f"{folder / '4' / '_CHECKPOINT_METADATA'}: ")
        assert "move the folder of this checkpoint away" in str(error)
    else:
        assert checkpoints.steps() == [2, 4]
        checkpoints.close()


def test_an_error_while_closing_the_record_hides_no_other_error(tmp_path, monkeypatch, caplog):
    logbook = Logbook(tmp_path, 10, 4)

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Scalars, "close", full)
    with pytest.raises(UserError, match="a checkpoint"), contextlib.closing(logbook):
        raise UserError("a checkpoint could not be written")
    assert "could not be written (No space left on device)" in caplog.text


@pytest.mark.parametrize("what", ["lines", "events"])
def test_a_record_that_the_disk_rejects_ends_the_run_with_one_line(tmp_path, what):
    """Evaluations write TensorBoard events alone. If a thread wrote them and died, the run would wait for it forever."""
    logbook = Logbook(tmp_path, 10, 4)
    metrics = {"loss": 1.0, "images_per_second": 1.0, "data_wait_share": 0.0}
    scores = dict.fromkeys(("miou", "pixel_accuracy", "mean_accuracy"), 0.5)
    scores |= {"level_share": [0.5, 0.5], "classes_averaged": 2, "images": 1, "seconds": 1.0}
    write = functools.partial(logbook.write_step, values=metrics)
    if what == "events":
        write = functools.partial(logbook.write_evaluation, result=scores)
    with files_up_to(4000), pytest.raises(UserError, match=r"the record cannot be written \(File too large\)"):
        for step in range(1000):
            write(step)
        logbook.sync()
