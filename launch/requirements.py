"""Write requirements*.txt from pyproject.toml, or check with --check that they are up to date."""

import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
# The extras that have a requirements file of their own: those that the scripts in launch/ install.
EXTRAS = ("cuda", "tpu", "dev", "docs", "parity")
# Lines of a requirements file that differ from pyproject.toml, each with its reason; None leaves a line out. A published package
# cannot require a local build like `+cpu`.
REPLACED: dict[str, dict[str, str | None]] = {
    "parity": {
        "torch": "torch==2.13.0+cpu  # built for CPU, a tenth of the size; if pip does not find it, install any torch>=2.4",
        "timm": None,  # no test uses it yet, and it requires a torchvision that does not load with the CPU build
    }
}
HEADER = "# Written by launch/requirements.py from pyproject.toml: edit that file, then run `python launch/requirements.py`.\n"


def name_of(requirement: str) -> str:
    """Return the bare package name of a requirement such as `jax[cuda13]>=0.10,<0.13`."""
    return requirement.partition(">")[0].partition("=")[0].partition("[")[0].strip()


def contents() -> dict[str, str]:
    """Return the text of each requirements file by its name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    files = {"requirements.txt": HEADER + "".join(f"{line}\n" for line in project["dependencies"])}
    for extra in EXTRAS:
        replaced = REPLACED.get(extra, {})
        lines = ["-r requirements.txt"]
        lines += [replaced.get(name_of(line), line) for line in project["optional-dependencies"][extra]]
        files[f"requirements-{extra}.txt"] = HEADER + "".join(f"{line}\n" for line in lines if line is not None)
    return files


def main(arguments: list[str]) -> int:
    """Write the files; with --check, write nothing and return 1 if one differs."""
    stale = [name for name, text in contents().items() if not _is_current(ROOT / name, text)]
    if "--check" in arguments:
        for name in stale:
            print(f"{name} does not match pyproject.toml: run `python launch/requirements.py`", file=sys.stderr)
        return 1 if stale else 0
    for name in stale:
        (ROOT / name).write_text(contents()[name])
        print(f"wrote {name}")
    return 0


def _is_current(file: Path, text: str) -> bool:
    return file.exists() and file.read_text() == text


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
