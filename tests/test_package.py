"""What is published: the wheel's contents, its version, its requirements, and the checks that guard it."""

import ast
import importlib.util
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

import pyrseg_jax

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Packages whose import name differs from their name in the registry.
IMPORT_NAMES = {
    "absl_py": "absl",
    "opencv_python_headless": "cv2",
    "pillow": "PIL",
    "pyyaml": "yaml",
    "orbax_checkpoint": "orbax",
    "mlflow_skinny": "mlflow",
}
# Packages that are part of a required one and always come with it, by the package that brings them.
BROUGHT_ALONG = {"etils": "orbax-checkpoint", "pydantic_core": "pydantic"}


@pytest.fixture(scope="module")
def requirements_script():
    """launch/requirements.py as a module."""
    spec = importlib.util.spec_from_file_location("requirements_script", ROOT / "launch" / "requirements.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = folder.glob("*.whl")
    return zipfile.ZipFile(file)


def source_files(folder: str) -> set[str]:
    files = (path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(ROOT)) for path in files}


def test_wheel_holds_the_package_and_the_configs_and_nothing_else(wheel):
    names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert names == source_files("pyrseg_jax") | {f"pyrseg_jax/{name}" for name in source_files("configs")}
    for needed in ("pyrseg_jax/py.typed", "pyrseg_jax/data/classes/ade20k.csv", "pyrseg_jax/configs/scenes.py"):
        assert needed in names


def test_wheel_has_the_version_of_the_package_and_its_command(wheel):
    folder = f"pyrseg_jax-{pyrseg_jax.__version__}.dist-info"
    assert f"\nVersion: {pyrseg_jax.__version__}\n" in wheel.read(f"{folder}/METADATA").decode()
    assert "pyrseg = pyrseg_jax.main:entry" in wheel.read(f"{folder}/entry_points.txt").decode()
    assert f"{folder}/licenses/LICENSE" in wheel.namelist()


def test_version_can_be_read_without_importing_jax():
    program = "import sys, pyrseg_jax; print(pyrseg_jax.__version__, 'jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split() == [pyrseg_jax.__version__, "False"], done.stderr


def test_documents_name_the_version():
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == pyrseg_jax.__version__
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest and newest[1] in (pyrseg_jax.__version__, "Unreleased")


def test_requirements_files_match_pyproject(requirements_script):
    files = requirements_script.contents()
    assert files.keys() == {path.name for path in ROOT.glob("requirements*.txt")}
    for name, text in files.items():
        assert (ROOT / name).read_text() == text, f"{name} is stale: run `python launch/requirements.py`"


def test_stale_requirements_file_is_found_and_rewritten(requirements_script, tmp_path, monkeypatch, capsys):
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    monkeypatch.setattr(requirements_script, "ROOT", tmp_path)
    assert requirements_script.main([]) == 0
    assert requirements_script.main(["--check"]) == 0
    capsys.readouterr()
    (tmp_path / "requirements-tpu.txt").write_text("jax\n")
    assert requirements_script.main(["--check"]) == 1
    assert capsys.readouterr().err == (
        "requirements-tpu.txt does not match pyproject.toml: run `python launch/requirements.py`\n"
    )
    requirements_script.main([])
    assert requirements_script.main(["--check"]) == 0


def test_all_extras_are_there():
    assert PROJECT["optional-dependencies"].keys() == {
        *("cuda", "tpu", "onnx", "litert", "import", "serve", "hub", "tune", "geo", "video", "parity", "dev", "docs"),
        *("mlflow", "wandb", "trackio"),
    }


def test_every_import_is_a_declared_requirement(requirements_script):
    """Without this, a package works where some other package happens to bring what it imports."""
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    declared = {requirements_script.name_of(line).replace("-", "_") for group in groups for line in group}
    allowed = {IMPORT_NAMES.get(name, name) for name in declared} | BROUGHT_ALONG.keys()
    allowed |= sys.stdlib_module_names | {"pyrseg_jax"}
    for path in [*(ROOT / "pyrseg_jax").rglob("*.py"), *(ROOT / "configs").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            missing = {name.split(".")[0] for name in names} - allowed
            assert not missing, f"{path.relative_to(ROOT)} imports {missing}, which pyproject.toml does not require"


def test_pre_commit_runs_the_checks_of_the_gate():
    gate = (ROOT / "launch" / "test.sh").read_text()
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    entries = [hook["entry"] for hook in repository["hooks"]]
    assert len(entries) == 4
    for entry in entries:
        assert re.search(rf'^check "[\w ]+" {re.escape(entry)}', gate, re.MULTILINE), f"launch/test.sh has no {entry}"
