"""The server with real networks: its answers are the files of `predict`, byte by byte, and SIGTERM loses none of them."""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from support.command_line import ROOT, call, error_of
from support.data_sets import CLASSES, draw_pair
from support.exports import write_toy
from support.runs import STEP, tiny_config, write_run
from support.serving import Bright, encoded, png_of, read_answer, running

from pyrseg_jax.commands import MODES, serve
from pyrseg_jax.commands.predict import predict
from pyrseg_jax.distributed import host_memory
from pyrseg_jax.errors import UserError
from pyrseg_jax.export.predictor import load_exported
from pyrseg_jax.run import command_line
from pyrseg_jax.run.trained_predictor import load_predictor
from pyrseg_jax.run.workdir import Workdir

SIZES = [(64, 96), (96, 64)]
OUTPUTS = ("labels", "overlay", "coco", "confidence")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A run, and a folder of photographs of several sizes and formats that the network sees as one of two sizes."""
    place = tmp_path_factory.mktemp("serving")
    write_run(place / "run", tiny_config(), CLASSES, is_vivid=True)
    (place / "photos").mkdir()
    rng = np.random.default_rng(0)
    exif = Image.Exif()
    exif[274] = 6
    for name, height, width, options in (
        ("a.png", 64, 96, {}),
        ("b.jpg", 60, 90, {}),
        ("c.jpg", 100, 70, {}),
        ("d.webp", 96, 64, {}),
        ("turned.jpg", 64, 96, {"exif": exif}),
        ("e.tif", 70, 101, {}),
    ):
        image = Image.fromarray(draw_pair(rng, height, width)[0])
        form = Image.registered_extensions()[Path(name).suffix]
        (place / "photos" / name).write_bytes(encoded(image, form, **options))
    return place


@pytest.fixture(scope="module")
def export(place):
    return write_toy(place / "model.zip", sizes=((16, 24),))


@pytest.fixture(scope="module")
def predictor(place):
    workdir = Workdir(str(place / "run"))
    return load_predictor(workdir.read_config(), workdir)[0]


@pytest.fixture
def predicted(place, predictor, tmp_path, monkeypatch):
    """The folder into which `predict` has written what it makes of the photographs."""
    monkeypatch.setattr("pyrseg_jax.run.model_predictor.make_predictor", lambda *_, **__: predictor)
    workdir = Workdir(str(place / "run"))
    predict(workdir.read_config(), workdir, str(place / "photos"), str(tmp_path / "out"), outputs=OUTPUTS)
    return tmp_path / "out"


def ask_for_all(service, place: Path, times: int = 1) -> dict[tuple[str, str, int], bytes]:
    """Ask for every answer about every photograph, with eight clients at a time."""
    photos = {path.stem: path.read_bytes() for path in sorted((place / "photos").iterdir())}

    def ask(key: tuple[str, str, int]) -> bytes:
        answer = service.ask(photos[key[0]], f"/v1/segment?format={key[1]}")
        assert answer.status == 200, answer
        return answer.body

    keys = [(name, form, i) for i in range(times) for name in photos for form in ("png", "json", "overlay")]
    with ThreadPoolExecutor(8) as clients:
        return dict(zip(keys, clients.map(ask, keys), strict=True))


def check_answers(answers: dict[tuple[str, str, int], bytes], predicted: Path) -> None:
    """Compare answers with the files of `predict`."""
    for (name, form, _), body in answers.items():
        if form == "json":
            document, coco = json.loads(body), json.loads((predicted / f"{name}_coco.json").read_text())
            masks = [(known["value"], known["segmentation"]) for known in document["classes"]]
            assert masks == [(found["category_id"], found["segmentation"]) for found in coco["annotations"]]
            sure = np.asarray(Image.open(predicted / f"{name}_confidence.png")) / 255
            assert document["confidence"] == pytest.approx(sure.mean(), abs=1e-4)
        else:
            assert body == (predicted / f"{name}{'.png' if form == 'png' else '_overlay.jpg'}").read_bytes(), (
                name,
                form,
            )


def test_answers_are_the_files_of_predict_and_nothing_is_compiled_after_the_warm_up(place, predictor, predicted):
    with running(predictor, SIZES) as service:
        # Earlier tests of this process may have compiled everything; another test shows that compilations are counted.
        before = service.value("pyrseg_compilations_total")
        check_answers(ask_for_all(service, place, times=2), predicted)
        assert service.value("pyrseg_compilations_total") == before
        refused = service.ask(png_of(np.zeros((40, 40, 3), np.uint8)))
        assert refused.status == 422 and "40 × 40 pixels" in refused.error and "64 × 96, 96 × 64" in refused.error
        assert service.value("pyrseg_compilations_total") == before


def test_images_that_share_a_batch_get_the_answers_that_they_get_alone(place, predictor, monkeypatch):
    """On an accelerator, batches are filled up to one size, so that there is one program; here this is tried on the CPU."""
    monkeypatch.setattr(predictor, "batch_size", 3)
    with running(predictor, SIZES[:1]) as service:
        photos = [path.read_bytes() for path in sorted((place / "photos").iterdir()) if path.stem in ("a", "b", "e")]
        alone = [service.ask(photo).body for photo in photos]
        num_batches, num_images = (service.value(f"pyrseg_batch_images_{name}") for name in ("count", "sum"))
        assert num_batches == num_images == 3
        with ThreadPoolExecutor(6) as clients:
            together = [answer.body for answer in clients.map(service.ask, photos * 4)]
        assert together == alone * 4
        assert service.value("pyrseg_batch_images_count") < 3 + 12
        assert len(set(alone)) == 3


def test_too_many_sizes_for_the_memory_of_programs_are_refused():
    class Forgetful(Bright):
        """Compiles every program anew, because there are too many."""

        def start(self, images, wants):
            jax.jit(lambda x: x + 1)(0).block_until_ready()
            return super().start(images, wants)

    with (
        pytest.raises(UserError, match="--sizes lists 2 sizes, more than the memory for compiled programs holds"),
        running(Forgetful(), SIZES),
    ):
        raise AssertionError("the server is ready")


def test_an_exported_model_answers_as_predict_does(place, export, tmp_path):
    predict(None, None, str(place / "photos"), str(tmp_path / "out"), outputs=OUTPUTS, model=str(export))
    with running(load_exported(export)[0]) as service:
        check_answers(ask_for_all(service, place), tmp_path / "out")


# ── The command ──


def test_the_word_after_serve_is_a_run_or_a_model(place, export):
    for word, flag in (
        (str(place / "run"), "workdir"),
        (str(export), "model"),
        ("camvid-small", "model"),
        ("hf://ORG/NAME", "model"),
        ("runs/x", "workdir"),
    ):
        found = command_line.parse(["serve", word], MODES)
        assert found.flags[flag] == word
        assert found.flags["model" if flag == "workdir" else "workdir"] is None
    found = command_line.parse(["serve", "camvid-small", "--port=0", "--any_size", "--timeout=2.5"], MODES)
    assert (found.flags["host"], found.flags["port"], found.flags["any_size"]) == ("127.0.0.1", 0, True)
    message = error_of(call("serve", "camvid-small", "--model=scenes-small"))
    assert "'camvid-small' and --model=scenes-small name two models" in message


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["camvid-small", "--sizes=64"], "--sizes=64: expected HEIGHTxWIDTH"),
        (["camvid-small", "--sizes=64x64", "--max_pixels=4095"], "--max_pixels=4095 refuses such images"),
        (["camvid-small", "--port=70000"], "--port=70000: expected a port"),
        (["camvid-small", "--timeout=0"], "--timeout=0: expected a number above 0"),
        (["camvid-small", "--host=192.0.2.1"], "cannot listen there"),
        (["camvid-small", "--token=absent"], "--token=absent cannot be read (No such file or directory)"),
        (["camvid-small", "--token=short"], "holds no token: expected 16 to 1024 printable ASCII characters"),
        (["EXPORT", "--port=0", "--sizes=64x64"], "has programs for sizes of its own"),
        (["EXPORT", "--step=3"], "--step and --model exclude each other"),
        (["absent"], "absent holds no run (there is no config.json)"),
    ],
)
def test_what_serve_cannot_do_is_one_line(export, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "short").write_text("secret\n")
    assert words in error_of(call("serve", *(word.replace("EXPORT", str(export)) for word in arguments)))


def test_a_server_returns_memory_and_other_modes_keep_it(monkeypatch):
    chosen = []
    for name in ("return_memory", "keep_memory_between_steps"):
        monkeypatch.setattr(host_memory, name, lambda name=name: chosen.append(name))
    call("serve", "absent")
    call("evaluate", "--workdir=absent")
    assert chosen == ["return_memory", "keep_memory_between_steps"]


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert "serve needs the package uvicorn, which is not installed: install the extra `serve`" in error_of(
        call("serve", "camvid-small")
    )


def test_the_command_serves_a_run_until_a_signal_comes(place, predictor, monkeypatch):
    """The signal is noted, not raised: SIGTERM is the usual end of a server, and Ctrl-C is told of."""
    seen = {}

    def look(app, engine, listener, is_stopped):
        seen.update(sizes=engine.sizes, takes_any_size=engine.takes_any_size, step=engine.model["step"])
        engine.is_ready = True
        os.kill(os.getpid(), number)
        while not is_stopped():
            time.sleep(0.01)
        engine.close()

    monkeypatch.setattr("pyrseg_jax.serving.server.serve", look)
    trained = types.SimpleNamespace(step=STEP, fingerprint="0123")
    monkeypatch.setattr("pyrseg_jax.run.trained_predictor.load_predictor", lambda *_: (predictor, trained))
    config, workdir = Workdir(str(place / "run")).read_config(), Workdir(str(place / "run"))
    from pyrseg_jax.run import signals

    with signals.handling():
        signals.begin_work(None)
        number = signal.SIGTERM
        serve.serve(config, workdir, port=0)
        assert seen == {"sizes": [(64, 64)], "takes_any_size": True, "step": STEP}
        serve.serve(config, workdir, port=0, sizes=["64x96"])
        assert seen == {"sizes": [(64, 96)], "takes_any_size": False, "step": STEP}
        number = signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            serve.serve(config, workdir, port=0, any_size=True, sizes=["64x96"])
        assert seen["takes_any_size"]


def test_sigterm_finishes_what_was_accepted(export, tmp_path):
    """A process of its own: a request whose body is half sent is answered, and then the process ends with status 0."""
    photo = draw_pair(np.random.default_rng(0), 16, 24)[0]
    command = [sys.executable, "-m", "pyrseg_jax.main", "serve", str(export), "--port=0"]
    token = "0123456789abcdef"
    env = os.environ | {"PYTHONPATH": str(ROOT), "PYRSEG_TOKEN": token}
    process = subprocess.Popen(command, cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True)
    lines: list[str] = []
    try:
        assert process.stderr is not None
        for line in process.stderr:
            lines.append(line)
            if "ready after" in line:
                break
        found = re.search(r"listening on http://127\.0\.0\.1:(\d+)", "".join(lines))
        assert found is not None, lines
        body = png_of(photo)
        with socket.create_connection(("127.0.0.1", int(found[1])), timeout=20) as connection:
            head = f"POST /v1/segment HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Length: {len(body)}\r\n\r\n"
            connection.sendall(head.encode() + body[:50])
            time.sleep(0.3)
            process.terminate()
            wait_until_refused(int(found[1]))
            connection.sendall(body[50:])
            response = http.client.HTTPResponse(connection)
            response.begin()
            answer = read_answer(response)
        rest = process.stderr.read()
        assert process.wait(20) == 0, rest
    finally:
        process.kill()
        process.wait()
    assert answer.status == 200
    assert answer.body == png_of(load_exported(export)[0](photo).labels + np.uint8(1))
    assert "every request that was accepted was answered" in rest and "Traceback" not in rest
    assert not any(word in "".join(lines) + rest for word in (token, "Uvicorn"))


def wait_until_refused(port: int) -> None:
    """Wait until nobody listens at a port."""
    for _ in range(200):
        with contextlib.suppress(TimeoutError):
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
            except ConnectionRefusedError:
                return
        time.sleep(0.05)
    raise AssertionError("the server still accepts connections")


@pytest.mark.slow
def test_memory_stays_flat():
    """Thousands of requests, good and bad ones, of many sizes; the first fill pools and caches, and are not counted."""
    rng = np.random.default_rng(0)
    photos = [png_of(rng.integers(0, 256, (50 + 10 * i, 300, 3), np.uint8)) for i in range(30)]
    bodies = [*photos, photos[0][:500], b"text"]
    with running(Bright(batch_size=2)) as service, ThreadPoolExecutor(8) as clients:
        sizes = []
        for _ in range(6):
            list(clients.map(service.ask, bodies * 12))
            sizes.append(resident_bytes())
    assert sizes[-1] - sizes[1] < 30e6, [size / 1e6 for size in sizes]
    assert not [thread for thread in threading.enumerate() if thread.name == "server"]


def resident_bytes() -> int:
    """Return the memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
