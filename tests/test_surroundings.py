"""The program in odd surroundings: streams that fail, signals at any moment, users without a home, names that forge log lines."""

import io
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.command_line import ROOT, call, error_of
from support.data_sets import write_folder

from pyrseg_jax.commands import MODES
from pyrseg_jax.errors import UserError
from pyrseg_jax.run import command_line, ending, signals, terminal
from pyrseg_jax.storage import caches
from pyrseg_jax.training.preemption import Preempted

FORGED = "x\nerror: forged\x1b[2J\u202egpj.\r"
PROGRAM = [sys.executable, "-m", "pyrseg_jax.main"]
VALIDATE = ["validate", "--config=scenes", "--config.data.name=folder"]

LIMIT_S = 120  # of any program that is started here


def start(command, **options):
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | options.pop("env", {})
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    process = subprocess.Popen(command, cwd=ROOT, env=environment, text=True, start_new_session=True, **options)
    limit = threading.Timer(LIMIT_S, process.kill)  # for a test that reads what a program prints, and waits forever
    limit.daemon = True
    limit.start()
    return process


def in_shell(line, **environment):
    """Run `pyrseg` by a line of bash, where it is called `pyrseg`."""
    program = f'pyrseg() {{ "{sys.executable}" -m pyrseg_jax.main "$@"; }}\n'
    done = subprocess.run(
        ["bash", "-c", program + line],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr, done.stderr
    return done


# --- every exception is one line


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (UserError("a.png is bad: replace it"), ["error: a.png is bad: replace it"]),
        (MemoryError(), ["there is not enough memory", "lower config.training.batch_size"]),
        (
            RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9 bytes.\n" + 9 * "x"),
            ["lower config"],
        ),
        (RuntimeError("std::bad_alloc"), ["there is not enough memory (RuntimeError: std::bad_alloc)"]),
        (RuntimeError("can't start new thread"), ["the system starts no more threads", "ulimit -u"]),
        (BlockingIOError(11, "Resource temporarily unavailable"), ["the system starts no more threads"]),
        (OSError(28, "No space left on device", "/a/b"), ["error: /a/b: No space left on device"]),
        (OSError("no number"), ["OSError: no number"]),
        (RuntimeError("Could not determine home directory."), ["set HOME, or write the whole path"]),
        (ZeroDivisionError("division\nby zero"), ["the program has a fault (ZeroDivisionError: division)", "--debug"]),
    ],
)
def test_every_exception_is_one_line_that_says_what_to_do(error, words, capsys):
    assert ending.end(error, MODES["train"]) == 1
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1 and printed.startswith("error: ")
    for word in words:
        assert word in printed


def test_a_worker_that_the_system_has_killed_is_one_line(capsys):
    from concurrent.futures.process import BrokenProcessPool

    assert ending.end(BrokenProcessPool("terminated abruptly"), MODES["prepare"]) == 1
    assert (
        "a worker process was killed, most likely because memory ran out: close other programs"
        in capsys.readouterr().err
    )


@given(st.text())
def test_an_error_message_cannot_begin_a_second_line(text):
    stream, before = io.StringIO(), sys.stderr
    sys.stderr = stream
    try:
        terminal.print_error(text)
    finally:
        sys.stderr = before
    assert stream.getvalue().splitlines(keepends=True) == [stream.getvalue()]
    assert "\x1b" not in stream.getvalue()


@given(st.text())
def test_a_logged_message_is_one_line_whatever_it_holds(text):
    record = logging.LogRecord("name", logging.INFO, "file", 1, "reading %s", (text,), None)
    line = terminal.LineFormatter("%(message)s").format(record)
    harmless = ("\u200c", "\u200d")  # joiners of letters; spaces of any width are harmless, too
    assert all(c.isprintable() or c in harmless or unicodedata.category(c) == "Zs" for c in line)
    assert len(line.splitlines()) == 1 and "\x1b" not in line and "\u202e" not in line


def test_the_traceback_that_debug_asks_for_keeps_its_lines():
    try:
        raise ValueError("x")
    except ValueError:
        record = logging.LogRecord("name", logging.INFO, "file", 1, "failed", (), sys.exc_info())
    assert len(terminal.LineFormatter("%(message)s").format(record).splitlines()) > 3


@pytest.mark.parametrize(
    "arguments",
    [
        ["evaluate", f"--workdir={FORGED}"],
        ["predict", f"--workdir={FORGED}", f"--input={FORGED}", f"--output={FORGED}"],
        ["export", f"--workdir={FORGED}"],
        ["train", f"--config={FORGED}"],
        [*VALIDATE, f"--config.data.root={FORGED}"],
        ["prepare", "--config=scenes", f"--config.data.name={FORGED}"],
        ["compile", "--config=scenes", f"--topology={FORGED}"],
        ["help", FORGED],
        ["completion", FORGED],
        [FORGED],
        [f"--{FORGED}"],
    ],
)
def test_names_forge_no_line_in_any_mode(arguments):
    done = call(*arguments)
    error_of(done)
    assert "\x1b" not in done.stderr and "\u202e" not in done.stderr
    assert r"\x1b[2J" in done.stderr


def test_names_of_files_and_classes_forge_no_line_in_a_report(tmp_path):
    folder = write_folder(tmp_path / FORGED, {"training": 2, "validation": 1})
    bad = folder / "images" / "training" / f"{FORGED}.jpg"
    bad.write_bytes(b"broken")
    shutil.copy(
        folder / "annotations" / "training" / "training_0.png", folder / "annotations" / "training" / f"{FORGED}.png"
    )
    done = call(*VALIDATE, f"--config.data.root={folder}")
    assert done.returncode == 1
    assert not [line for line in done.stderr.splitlines() if line.startswith("error: forged")]
    assert "\x1b" not in done.stderr and "\u202e" not in done.stderr


# --- tracebacks on demand


@pytest.mark.parametrize(
    "words", [["--debug"], ["-debug"], ["--debug=true"], ["--debug=1"], ["--debug", "true"], ["--debug", "x"]]
)
def test_debug_is_seen_before_the_command_line_is_parsed(words):
    assert command_line.asks_for_debug(["train", *words])
    with pytest.raises(UserError, match="--confg is not a flag"):
        call("--confg=3", *words)


@pytest.mark.parametrize(
    "words", [[], ["--debug=false"], ["--debug", "0"], ["--nodebug"], ["--debug", "--debug=false"], ["debug"]]
)
def test_without_debug_there_is_no_traceback(words):
    assert not command_line.asks_for_debug(["train", *words])


def test_empty_values_of_config_and_workdir_count_as_not_given(tmp_path):
    from pyrseg_jax import main

    arguments = command_line.parse(["train", "--config=", "--workdir="], MODES)
    config, workdir = main.read_config(arguments, MODES["train"])
    assert config.data.name == "scenes" and str(workdir.path) == "runs/scenes"
    assert "holds no run" in error_of(call("evaluate", "--config=", f"--workdir={tmp_path}"))


# --- standard streams


@pytest.mark.parametrize(
    ("line", "status", "words"),
    [
        ("pyrseg help config >/dev/full", 1, "error: standard output could not be written (No space left on device)"),
        ("pyrseg help config >&-", 0, ""),
        ("pyrseg help <&- >&- 2>&-", 0, ""),
        ("pyrseg nothing >&- 2>&-", 1, ""),
        ("pyrseg nothing 2>/dev/full", 1, ""),
        ("pyrseg help config | head -1 >/dev/null; exit ${PIPESTATUS[0]}", (0, 141), ""),
        ("pyrseg help config | true; exit ${PIPESTATUS[0]}", 141, ""),
    ],
)
def test_streams_that_fail_end_nothing(line, status, words):
    done = in_shell(line)
    assert done.returncode in (status if isinstance(status, tuple) else (status,)), done.stderr
    assert words in done.stderr
    assert len(done.stderr.splitlines()) <= 1


ASCII = [{"LC_ALL": "C", "PYTHONUTF8": "0"}, {"PYTHONIOENCODING": "ascii:strict"}]


@pytest.mark.parametrize("environment", ASCII, ids=["locale", "strict"])
def test_text_is_readable_in_any_encoding(environment):
    done = in_shell("pyrseg help", **environment)
    assert done.returncode == 0 and "image sizes" in done.stdout and "KEY=VALUE ...]" in done.stdout


@given(st.text())
def test_no_text_is_too_strange_for_an_encoding(text):
    for encoding in ("ascii", "latin-1", "utf-8"):
        written = io.BytesIO()
        stream = terminal.Output(written, encoding=encoding, errors=terminal.PLAINLY, newline="")
        print(text, end="", file=stream, flush=True)
        assert not text.isascii() or written.getvalue().decode() == text


def test_an_output_stream_gives_up_after_its_first_error():
    stream = terminal.Output(open("/dev/full", "wb", buffering=0), encoding="utf-8", write_through=True)  # noqa: SIM115
    print("lost", file=stream)
    first = stream.failure
    print("lost, too", file=stream, flush=True)
    assert first is stream.failure and first is not None and first.errno == 28


def test_a_closed_descriptor_is_not_given_to_the_next_file(tmp_path):
    code = (
        "from pyrseg_jax.run import terminal; terminal.prepare_streams(); f = open('x', 'w'); print('lost', flush=True)"
    )
    command = f"cd '{tmp_path}' && '{sys.executable}' -c \"{code}\" >&- 2>&-"
    assert in_shell(command).returncode == 0
    assert (tmp_path / "x").read_text() == ""


# --- signals


@pytest.mark.parametrize("mode", list(MODES))
def test_an_interruption_says_what_is_true_of_the_mode(mode, capsys):
    assert ending.end(KeyboardInterrupt(), MODES[mode], None, has_started=True) == 130
    said = capsys.readouterr().err
    assert said == f"interrupted: {MODES[mode].interrupted}\n"
    assert ("checkpoint" in said) == (mode == "train") and ("shards are kept" in said) == (mode == "prepare")
    assert ending.end(KeyboardInterrupt(), MODES[mode], None, has_started=False) == 130
    assert capsys.readouterr().err == "interrupted: nothing was started, so nothing has changed\n"


class Folder:
    """A run's folder as far as the end of a program asks for it."""

    def __init__(self, has_checkpoint):
        self.has_checkpoint = lambda: has_checkpoint


def test_an_interrupted_training_resumes_only_if_it_has_a_checkpoint(capsys):
    ending.end(KeyboardInterrupt(), MODES["train"], Folder(True))
    assert "the same command resumes from the last checkpoint" in capsys.readouterr().err
    ending.end(KeyboardInterrupt(), MODES["train"], Folder(False))
    assert "there is no checkpoint yet; the same command starts again" in capsys.readouterr().err
    assert ending.end(Preempted(), MODES["train"], Folder(True)) == 75
    assert "preempted: saved" in capsys.readouterr().err
    assert ending.end(Preempted(), MODES["train"], Folder(False)) == 75
    assert "nothing to save yet; the same command starts again" in capsys.readouterr().err


def test_a_command_adds_what_it_knows_to_an_interruption(capsys):
    error = KeyboardInterrupt()
    error.add_note("3 of 7 images are complete")
    ending.end(error, MODES["predict"])
    assert capsys.readouterr().err.startswith(
        "interrupted: 3 of 7 images are complete; each file in --output is complete"
    )


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_other_signals_end_a_mode_like_an_interruption(number, status, capsys):
    assert ending.end(signals.Stopped(number), MODES["validate"]) == status
    assert f"stopped by {number.name}: nothing was written" in capsys.readouterr().err
    assert ending.end(signals.Stopped(number), MODES["predict"]) == 75  # schedulers start the same command again
    assert f"stopped by {number.name}: each file in --output is complete" in capsys.readouterr().err
    assert ending.end(signals.Stopped(signal.SIGTERM), MODES["train"], Folder(False)) == 75


def test_an_interruption_that_a_library_turned_into_another_error_stays_one(capsys):
    try:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as interrupt:
            raise ImportError("numpy could not be imported") from interrupt
    except ImportError as error:
        assert ending.end(error, MODES["validate"]) == 130
    assert capsys.readouterr().err.startswith("interrupted: ")


@pytest.mark.parametrize(
    ("number", "waits_s"), [(signal.SIGINT, (0.15, 0.5, 1.0)), (signal.SIGTERM, (0.5,)), (signal.SIGHUP, (0.5,))]
)
def test_a_signal_in_the_first_second_is_one_line(number, waits_s, folder):
    for wait_s in waits_s:
        process = start([*PROGRAM, *VALIDATE, f"--config.data.root={folder}"])
        time.sleep(wait_s)
        os.killpg(process.pid, number)
        stdout, stderr = process.communicate(timeout=60)
        assert "Traceback" not in stderr, stderr
        assert process.returncode in (0, 128 + number, -number), stderr
        if process.returncode == 128 + number:
            assert stderr.splitlines()[-1].startswith(f"{signals.name_of(number)}: ")


WORKING = """
import sys, time
from pyrseg_jax.run import signals
with signals.handling():
    signals.begin_work(None)
    print("working", flush=True)
    %s
"""
# The second interrupt may arrive in the first one's `except`, or anywhere else inside of the loop.
STUBBORN = """
    try:
        while True:
            try:
                time.sleep(100)
            except KeyboardInterrupt:
                print("swallowed", flush=True)
    except KeyboardInterrupt:
        time.sleep(100)
"""
POSTPONED = """
    with signals.postponing() as asked:
        print("ready", flush=True)
        while not asked.has_come():
            time.sleep(0.01)
        try:
            asked.raise_again()
        except BaseException as error:
            print(asked.number, type(error).__name__)
"""
IN_DESTRUCTOR = """
    class Slow:
        def __del__(self):
            end = time.monotonic() + 1
            while time.monotonic() < end: pass
    try:
        del_me = Slow(); del del_me
        time.sleep(100)
    except KeyboardInterrupt:
        sys.exit(42)
"""


def test_a_second_interrupt_ends_a_process_that_ignores_the_first():
    process = start([sys.executable, "-c", WORKING % STUBBORN])
    assert process.stdout.readline() == "working\n"
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "swallowed\n"
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == 130 and stderr.splitlines()[-1] == "interrupted twice: ended at once"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_postponed_signal_is_raised_when_the_work_asks_for_it(number):
    process = start([sys.executable, "-c", WORKING % POSTPONED])
    assert [process.stdout.readline() for _ in range(2)] == ["working\n", "ready\n"]
    process.send_signal(number)
    stdout, _ = process.communicate(timeout=20)
    assert stdout == f"{int(number)} {'KeyboardInterrupt' if number == signal.SIGINT else 'Stopped'}\n"


def test_an_interrupt_inside_of_a_destructor_is_not_lost():
    process = start([sys.executable, "-c", WORKING % IN_DESTRUCTOR])
    assert process.stdout.readline() == "working\n"
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == 42 and stderr == ""


def test_an_ignored_signal_stays_ignored():
    code = WORKING % "import signal; sys.exit(signal.getsignal(signal.SIGHUP) is signal.SIG_IGN)"
    assert subprocess.run(["nohup", sys.executable, "-c", code], cwd=ROOT, capture_output=True).returncode == 1


# --- worker processes

POOL = """
import time
from pyrseg_jax.distributed.worker_pool import WorkerPool
if __name__ == "__main__":
    with WorkerPool(2, time.sleep, (0,)) as pool:
        tasks = [pool.submit(time.sleep, wait_s) for wait_s in (0, 0, 1000, 1000, 1000)]
        [task.result() for task in tasks[:2]]
        print("working", flush=True)
        tasks[2].result()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_workers_of_a_pool_end_with_their_parent(number, tmp_path):
    (tmp_path / "pool.py").write_text(POOL)
    process = start([sys.executable, tmp_path / "pool.py"])
    assert process.stdout.readline() == "working\n"
    if number == signal.SIGKILL:
        process.kill()
    else:
        os.killpg(process.pid, number)  # as a terminal does
    _, stderr = process.communicate(timeout=20)  # returns once no process holds the pipes
    assert stderr.count("KeyboardInterrupt") <= 1 and "Process Spawn" not in stderr, stderr


READING = """
import sys
from absl import flags
from pyrseg_jax.data.catalog import open_dataset
from pyrseg_jax.data.pipeline import training_batches
from pyrseg_jax.data.transforms import Augmentation
if __name__ == "__main__":
    flags.FLAGS.mark_as_parsed()
    data = open_dataset("folder", sys.argv[1], None)
    augmentation = Augmentation(32, 1.0, 1.0, False, False)
    batches = training_batches(data.open_split("training"), data.label_space, augmentation, batch_size=2, seed=0, workers=2)
    next(batches)
    print("working", flush=True)
    while True:
        next(batches)
"""


def test_processes_that_read_data_end_with_a_killed_training(folder, tmp_path):
    (tmp_path / "reading.py").write_text(READING)
    process = start([sys.executable, tmp_path / "reading.py", str(folder)])
    assert process.stdout.readline() == "working\n", process.communicate()
    process.kill()
    process.communicate(timeout=20)


# --- caches, and users whom the system does not know


def cache_folder_with(monkeypatch, **environment):
    for name in ("XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, str(value))
    return caches.cache_folder()


def test_caches_are_where_the_standard_says(monkeypatch, tmp_path):
    home = {"HOME": tmp_path / "home"}
    assert cache_folder_with(monkeypatch, XDG_CACHE_HOME=tmp_path / "x", **home) == tmp_path / "x" / "pyrseg_jax"
    for relative in ("", "relative/folder", "~"):
        found = cache_folder_with(monkeypatch, XDG_CACHE_HOME=relative, **home)
        assert found == tmp_path / "home" / ".cache" / "pyrseg_jax"


def test_without_a_usable_home_caches_are_in_a_private_temporary_folder(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "file").write_text("")
    for environment in ({"XDG_CACHE_HOME": tmp_path / "file"}, {"HOME": tmp_path / "file"}, {"HOME": "/proc/none"}):
        found = cache_folder_with(monkeypatch, TMPDIR=tmp_path, **environment)
        assert found == tmp_path / f"pyrseg_jax-{os.getuid()}"
        assert found.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("what", ["open to all", "link", "file"])
def test_a_temporary_folder_that_others_control_is_not_used(monkeypatch, tmp_path, what):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    planted = tmp_path / f"pyrseg_jax-{os.getuid()}"
    if what == "open to all":
        planted.mkdir()
        planted.chmod(0o777)
    elif what == "link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        planted.symlink_to(tmp_path / "elsewhere")
    else:
        planted.write_text("")
    found = cache_folder_with(monkeypatch, HOME="/proc/none", TMPDIR=f"{tmp_path}/")
    assert found != planted and found.parent == tmp_path and found.stat().st_mode & 0o777 == 0o700


STRANGER = [
    "setpriv",
    "--reuid=12345",
    "--clear-groups",
    "--inh-caps=+dac_read_search",
    "--ambient-caps=+dac_read_search",
]


def can_become_a_stranger() -> bool:
    return (
        shutil.which("setpriv") is not None and subprocess.run([*STRANGER, "true"], capture_output=True).returncode == 0
    )


@pytest.mark.skipif(not can_become_a_stranger(), reason="needs the right to change the user, and setpriv")
def test_a_user_without_a_home_whom_the_system_does_not_know_can_work(folder, tmp_path):
    for place in (tmp_path, *tmp_path.parents):
        if place.stat().st_uid == os.getuid() and place != Path("/"):
            place.chmod(place.stat().st_mode | 0o055)
    (tmp_path / "temporary").mkdir(mode=0o777)
    (tmp_path / "temporary").chmod(0o777)
    command = [*STRANGER, "env", "-u", "HOME", "-u", "XDG_CACHE_HOME", f"TMPDIR={tmp_path / 'temporary'}", *PROGRAM]
    process = start([*command, *VALIDATE, f"--config.data.root={folder}"])
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    assert "no problem found" in stderr and len(stderr.splitlines()) == 1, stderr
    process = start([*command, "evaluate", "--workdir=~/run"])
    assert "--workdir=~/run: the home folder is not known" in process.communicate(timeout=60)[1]
