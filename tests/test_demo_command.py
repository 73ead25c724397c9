"""`pyrseg demo`: the folder that it writes, the library that it needs, the samples, and the server."""

import dataclasses
import hashlib
import http.client
import http.server
import io
import json
import re
import tarfile
import threading
import urllib.error
import urllib.request

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support import exports
from support.command_line import call, error_of
from support.contrast import contrast
from support.data_sets import CLASSES, draw_pair
from support.runs import tiny_config

from pyrseg_jax import main
from pyrseg_jax.commands import MODES
from pyrseg_jax.commands import demo as demo_command
from pyrseg_jax.commands.demo import default_sizes
from pyrseg_jax.data.label_space import ade_layout
from pyrseg_jax.demo import folder as demo_folder
from pyrseg_jax.demo import runtime
from pyrseg_jax.demo.samples import MOST, read_samples, render_sample
from pyrseg_jax.demo.server import HEADERS, make_server
from pyrseg_jax.errors import UserError
from pyrseg_jax.export.onnx.program import make_program
from pyrseg_jax.export.onnx.write import Exported
from pyrseg_jax.run import command_line
from pyrseg_jax.run.packaged_models import packaged_models
from pyrseg_jax.run.workdir import Workdir

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

from support import demos  # noqa: E402

SIZE = (32, 64)


def prepare_toy(config, workdir, run, size, step):
    """Return a toy network in place of the run's, whose conversion takes seconds; test_demo_whole.py has a real one."""
    program = make_program(exports.toy(), size, size, np.dtype(np.uint8))
    weights = {"/".join(at): np.asarray(x) for at, x in flatten_dict(exports.toy_variables()).items()}
    images = np.random.default_rng(0).integers(0, 256, (1, *size, 3), np.uint8)
    expected = jax.device_get(jax.jit(program.run)(weights, images, np.float32(0.5)))
    about = {"strides": json.dumps(exports.STRIDES), "temperatures": "[1.5, 2.0]", "run": run}
    return Exported(program, weights, 0.5, about, "a toy", images, expected)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A run, its demo, and the command."""
    place = tmp_path_factory.mktemp("demo")
    Workdir(str(place / "run")).open_for_training(tiny_config(), ade_layout(exports.CLASSES))
    package = demos.write_fake_package(place / "package")
    arguments = ["demo", place / "run", f"--output={place / 'out'}", "--sizes=32x64", f"--runtime={package}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo_command, "prepare", prepare_toy)
        done = call(*arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(place / "out" / "index.html")
    return place / "run", place / "out", arguments


def test_the_folder_is_complete_and_holds_nothing_else(written):
    _, folder, _ = written
    assert {path.name for path in folder.iterdir()} == set(demo_folder.file_names([SIZE], []))
    page = (folder / "index.html").read_text()
    for name in re.findall(r'(?:src|href)="([^"]+)"', page):
        assert name == "data:," or (folder / name).is_file(), name
    for name in re.findall(r'"([\w.-]+\.(?:js|json))"', "".join(p.read_text() for p in folder.glob("*.js"))):
        assert "ort" in name or (folder / name).is_file(), name
    asked = set(re.findall(r'element\("([\w-]+)"\)', (folder / "page.js").read_text()))
    assert asked - set(re.findall(r'id="([\w-]+)"', page)) == set()


def test_no_file_names_another_place_to_load_from(written):
    _, folder, _ = written
    allowed = {"http://www.w3.org/2000/svg", "http://localhost:8000"}
    for path in folder.iterdir():
        if path.suffix in (".html", ".js", ".css", ".json") and path.name not in runtime.FILES:
            assert set(re.findall(r"https?://[^\s\"'“”]+", path.read_text())) <= allowed, path.name
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', (folder / "index.html").read_text())[1]
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy and "*" not in policy and "unsafe-inline" not in policy


def test_the_page_knows_the_model(written):
    run, folder, _ = written
    content = (folder / demo_folder.network_name(SIZE)).read_bytes()
    outputs = [output.name for output in onnxruntime.InferenceSession(content).get_outputs()]
    described = json.loads((folder / "demo.json").read_text())
    assert {*described["probabilities"], *described["unity"]} == set(outputs)
    assert described["threshold"] == Workdir(str(run)).read_config().evaluation.threshold
    assert described["strides"] == list(exports.STRIDES) and described["temperatures"] == [1.5, 2.0]
    assert (
        described["names"] == list(exports.CLASSES)
        and described["values"] == list(range(1, 12))
        and not described["isWide"]
    )
    assert described["networks"][0]["megabytes"] == len(content) / 1e6


def test_a_demo_is_replaced_only_if_the_user_says_so(written):
    _, folder, arguments = written
    assert "exists: name another folder with --output, or give --overwrite" in error_of(call(*arguments))


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["demo", "RUN"], "demo needs --output=PATH"),
        (["demo", "PLACE/none", "--output=PLACE/new"], "holds no run"),
        (["demo", "RUN", "--output=PLACE/new", "--sizes=64"], "expected HEIGHTxWIDTH in pixels, multiples of 32"),
        (["demo", "RUN", "--output=PLACE/new", "--sizes=64x65"], "expected HEIGHTxWIDTH in pixels, multiples of 32"),
        (["demo", "RUN", "--output=PLACE/new", "--sizes=0x64"], "expected HEIGHTxWIDTH in pixels, multiples of 32"),
        (["demo", "RUN", "--output=PLACE/new", "--input=PLACE/none"], "there is no such file or folder"),
        (["demo", "RUN", "--output=PLACE/new", "--runtime=PLACE"], "there is no ort.wasm.min.js: run `npm pack"),
        (["demo", "RUN", "--output=PLACE/new", "--port=99999"], "expected a port, 1 to 65535, or 0"),
        (["demo", "RUN", "--output=gs://bucket/demo"], "name a folder on a local disk"),
    ],
)
def test_wrong_uses_say_what_to_do(written, tmp_path, arguments, message):
    words = [word.replace("RUN", str(written[0])).replace("PLACE", str(tmp_path)) for word in arguments]
    assert message in error_of(call(*words))
    assert not (tmp_path / "new").exists()


def test_a_model_of_other_images_is_refused(tmp_path):
    config = tiny_config()
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, channels=4))
    Workdir(str(tmp_path / "run")).open_for_training(config, ade_layout(CLASSES))
    said = error_of(call("demo", tmp_path / "run", f"--output={tmp_path / 'out'}"))
    assert "demo needs a model that reads photographs (RGB of 8 bits)" in said


def test_missing_packages_are_said_first(written, tmp_path, monkeypatch):
    find = __import__("importlib").util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *rest: None if name == "onnx" else find(name, *rest))
    said = error_of(call("demo", written[0], f"--output={tmp_path / 'out'}"))
    assert "demo needs the package onnx, which is not installed" in said and "pip install 'pyrseg-jax[onnx]'" in said


def test_the_word_may_be_the_name_of_a_packaged_model():
    for name, place in packaged_models().items():
        arguments = command_line.parse(["demo", name, "--output=out"], MODES)
        config, workdir = main.read_config(arguments, MODES["demo"])
        assert str(workdir.path) == str(place) and config.model.backbone == "hrnet_small"


@given(st.integers(1, 2000), st.sampled_from([8, 16, 32, 64]))
def test_the_default_sizes_are_a_wide_and_a_tall_one(crop, coarsest):
    (short, long), tall = default_sizes(crop, coarsest)
    assert tall == (long, short)
    assert short % coarsest == long % coarsest == 0
    assert max(crop, 352) <= short < max(crop, 352) + coarsest
    assert abs(long - short * 4 / 3) <= coarsest / 2 + 1


# ── ONNX Runtime Web ──


def archive(files, folder="package/dist/"):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(folder + name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return content.getvalue()


FAKE = {name: f"fake {name}".encode() for name in runtime.FILES}


@pytest.fixture
def registry(monkeypatch, tmp_path):
    """A registry on this machine: a list of answers, of which the last one is repeated, and the paths that were asked for."""
    answers, asked = [archive(FAKE)], []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answers[0])

        def log_message(self, *_):
            pass

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("npm_config_registry", f"http://127.0.0.1:{server.server_address[1]}/")
        yield answers, asked
        server.shutdown()


def released(monkeypatch, content):
    """Take these files for the released ones."""
    monkeypatch.setattr(runtime, "SHA256", hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(runtime, "FILES", {name: hashlib.sha256(data).hexdigest() for name, data in FAKE.items()})


def test_the_library_is_downloaded_once(registry, monkeypatch, tmp_path):
    answers, asked = registry
    released(monkeypatch, answers[0])
    assert runtime.find_runtime(None).files == FAKE
    assert asked == [f"/onnxruntime-web/-/onnxruntime-web-{runtime.VERSION}.tgz"]
    assert runtime.find_runtime(None).files == FAKE
    assert len(asked) == 1
    (cached,) = (tmp_path / "cache").rglob("ort.wasm.min.js")
    cached.write_bytes(b"changed")
    assert runtime.find_runtime(None).files == FAKE  # downloaded again
    assert len(asked) == 2 and cached.read_bytes() == FAKE["ort.wasm.min.js"]


def test_another_file_than_the_released_one_is_refused(registry, tmp_path):
    with pytest.raises(UserError, match=f"{runtime.SHA256} was released: the download is damaged or was changed"):
        runtime.find_runtime(None)
    assert not list((tmp_path / "cache").rglob("ort*"))


def test_without_a_network_the_error_says_how_to_get_the_package(registry, monkeypatch):
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9/")
    with pytest.raises(
        UserError, match=r"cannot be downloaded from http://127.0.0.1:9/onnxruntime-web/-/.*refused"
    ) as caught:
        runtime.find_runtime(None)
    assert f"run `npm pack onnxruntime-web@{runtime.VERSION}` on a machine with a network" in str(caught.value)
    assert "--runtime=FILE" in str(caught.value)


@pytest.mark.parametrize("inside", ["", "dist", "package/dist", "node_modules/onnxruntime-web/dist"])
def test_the_package_is_found_unpacked(tmp_path, inside):
    (tmp_path / inside).mkdir(parents=True, exist_ok=True)
    for name, content in FAKE.items():
        (tmp_path / inside / name).write_bytes(content)
    assert runtime.find_runtime(str(tmp_path)) == runtime.Runtime("onnxruntime-web", FAKE)


def test_the_package_is_read_from_its_archive(tmp_path):
    path = tmp_path / "package.tgz"
    path.write_bytes(archive(FAKE | {"../../escaped": b"x"}))
    assert runtime.find_runtime(str(path)).files == FAKE
    assert [file.name for file in tmp_path.iterdir()] == ["package.tgz"]


@pytest.mark.parametrize(
    "content, message",
    [
        (b"not an archive", "cannot be unpacked"),
        (archive(FAKE)[:-200], "cannot be unpacked|has no dist/"),
        (archive({"ort.wasm.min.js": b"x"}), "has no dist/ort-wasm-simd-threaded.mjs"),
        (archive(FAKE, "other/"), "has no dist/ort.wasm.min.js"),
    ],
)
def test_a_damaged_archive_is_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "package.tgz"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        runtime.find_runtime(str(path))
    assert "npm pack" in str(caught.value) and "\n" not in str(caught.value)


def test_the_registry_is_that_of_npm(tmp_path, monkeypatch):
    for name in ("npm_config_registry", "NPM_CONFIG_REGISTRY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert runtime.find_registry() == runtime.PUBLIC_REGISTRY
    program = tmp_path / "npm"
    for said, expected in (("https://npm.example/", "https://npm.example/"), ("undefined", runtime.PUBLIC_REGISTRY)):
        program.write_text(f'#!/bin/sh\necho "{said}"\n')
        program.chmod(0o755)
        assert runtime.find_registry() == expected
    monkeypatch.setenv("npm_config_registry", "https://other.example/")
    assert runtime.find_registry() == "https://other.example/"


# ── Samples ──


def save(path, format):
    Image.fromarray(draw_pair(np.random.default_rng(0), 20, 30)[0]).save(path, format)
    return path


def test_samples_are_copied_unchanged(tmp_path):
    for name, format in (("b.jpg", "JPEG"), ("a.png", "PNG"), ("c.webp", "WEBP")):
        save(tmp_path / name, format)
    (tmp_path / "notes.txt").write_text("no photograph")
    found = read_samples(str(tmp_path))
    assert [(one.name, one.file) for one in found] == [
        ("a", "sample-1.png"),
        ("b", "sample-2.jpg"),
        ("c", "sample-3.webp"),
    ]
    assert found[1].content == (tmp_path / "b.jpg").read_bytes()
    (one,) = read_samples(str(tmp_path / "c.webp"))
    assert one.file == "sample-1.webp"


def test_bad_samples_are_refused(tmp_path):
    with pytest.raises(UserError, match="holds no photographs: expected files that end in"):
        read_samples(str(tmp_path))
    save(tmp_path / "a.jpg", "TIFF")
    with pytest.raises(UserError, match=r"a\.jpg is a TIFF: expected one of JPEG, PNG, WEBP"):
        read_samples(str(tmp_path))
    for i in range(MOST):
        save(tmp_path / f"{i}.png", "PNG")
    with pytest.raises(UserError, match=f"expected at most {MOST} samples"):
        read_samples(str(tmp_path))


def test_models_that_know_streets_get_a_rendered_scene():
    assert render_sample(["liver", "kidney", "tree", "person"]) == []
    (scene,) = render_sample(["Sky", "Road", "Tree", "Car"])
    assert Image.open(io.BytesIO(scene.content)).size == (256, 256)


# ── The page and the server ──


def test_texts_have_enough_contrast_in_both_color_schemes(written):
    """WCAG 2.2, success criterion 1.4.3: at least 4.5 to 1."""
    schemes = re.findall(r":root \{(.*?)\}", (written[1] / "demo.css").read_text(), re.DOTALL)
    assert len(schemes) == 2  # light, dark
    for scheme in schemes:
        colors = dict(re.findall(r"--([\w-]+): (#\w{6});", scheme))
        for ground in ("ground", "panel"):
            for ink in ("ink", "faint", "accent", "alert"):
                assert contrast(colors[ground], colors[ink]) >= 4.5, (ground, ink)
        assert contrast(colors["accent"], colors["on-accent"]) >= 4.5


def test_titles_and_names_are_escaped(tmp_path):
    model = demo_folder.DemoModel("<i>&x</i>", ade_layout(("<b>a</b>", "c")), 0.5, (8, 4), {SIZE: 10})
    found = demo_folder.contents(model, [], runtime.Runtime("x", FAKE))
    assert b"&lt;i&gt;&amp;x&lt;/i&gt;" in found["index.html"] and b"<i>" not in found["index.html"]
    assert json.loads(found["demo.json"])["names"] == ["<b>a</b>", "c"]


def test_the_server_answers_with_files_of_the_folder_only(tmp_path):
    (tmp_path / "secret").write_text("secret")
    folder = tmp_path / "demo"
    folder.mkdir()
    for name in ("index.html", "a.wasm", "a.mjs"):
        (folder / name).write_text(name)
    (folder / "inside").mkdir()
    with demos.serving(folder) as url:
        kinds = {
            "": "text/html; charset=utf-8",
            "a.wasm": "application/wasm",
            "a.mjs": "text/javascript; charset=utf-8",
        }
        for name, kind in kinds.items():
            with urllib.request.urlopen(url + name) as answer:
                assert answer.headers["Content-Type"] == kind
                assert all(answer.headers[header] == value for header, value in HEADERS.items())
        for name in ("inside/", "none", "%2e%2e/secret"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(url + name)
        connection = http.client.HTTPConnection(url.removeprefix("http://").rstrip("/"))
        connection.request("GET", "/../secret")
        assert connection.getresponse().status == 404
        connection.close()


def test_only_this_machine_reaches_the_server_and_a_taken_port_is_said(tmp_path):
    with make_server(tmp_path, 0) as server:
        address, port = server.server_address[:2]
        assert address == "127.0.0.1"
        with pytest.raises(
            UserError, match=f"--port={port} cannot be used .*: name another, or 0 for any that is free"
        ):
            make_server(tmp_path, port)
