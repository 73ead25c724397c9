"""Find and load config files: Python programs whose `get_config` returns a `ConfigDict`."""

import ast
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import ml_collections

from pyrseg_jax.errors import UserError

DEFAULT = "scenes"  # the embedded data set, which needs no files
_PACKAGE = Path(__file__).parents[1]


class ConfigName(NamedTuple):
    """A value of --config, such as `camvid:cpu,F`.

    path: the path of the config file.
    variant: the words after the colon, joined with commas, or "".
    """

    path: Path
    variant: str


def packaged() -> dict[str, Path]:
    """Return the configs that come with the package, by name: of the installed package, or of the checkout."""
    for folder in (_PACKAGE / "configs", _PACKAGE.parent / "configs"):
        if folder.is_dir():
            return {path.stem: path for path in sorted(folder.glob("*.py")) if path.stem != "__init__"}
    return {}


def find(chosen: str) -> ConfigName:
    """Find the config file that --config names: as a path, or as one of the packaged configs.

    Raises:
      UserError: if there is none.
    """
    file, _, variant = chosen.partition(":")
    if Path(file).is_file():
        return ConfigName(Path(file), variant)
    found = packaged().get(file.removesuffix(".py"))
    if found is None:
        raise UserError(
            f"--config={chosen}: there is no such file, and no packaged config of this name: {', '.join(packaged())} "
            "(`pyrseg configs` describes them)"
        )
    return ConfigName(found, variant)


def default_run_name(name: ConfigName) -> str:
    """Return the name of a run's folder when the user gives none, for example `camvid-cpu-F`."""
    return "-".join([name.path.stem, *filter(None, name.variant.split(","))])


def load(name: ConfigName) -> ml_collections.ConfigDict:
    """Run a config file and return what its `get_config` returns.

    Raises:
      UserError: naming the file, for any error in it. It is a program, so it can fail in any way.
    """
    chosen = f"--config={name.path}" + (f":{name.variant}" if name.variant else "")
    try:
        get_config = load_module(name.path).get_config
        config = get_config(name.variant) if name.variant else get_config()
    except (Exception, SystemExit) as error:
        reason = (str(error).strip().splitlines() or [""])[-1].strip()
        raise UserError(f"{chosen}: {type(error).__name__}: {reason}") from error
    if not isinstance(config, ml_collections.ConfigDict):
        raise UserError(
            f"{chosen}: get_config returned {type(config).__name__}: expected a ConfigDict, made by "
            "pyrseg_jax.run.config.defaults()"
        )
    return config


def load_module(path: Path) -> ModuleType:
    """Import a config file as a module that no other import finds."""
    spec = importlib.util.spec_from_file_location(f"pyrseg_jax_config_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file: its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Words(dict[str, str]):
    """A group of words after a config's name, each with its meaning in one line.

    Attributes:
      title: what the words stand for, in the plural, such as "backbones".
    """

    def __init__(self, title: str, meanings: Mapping[str, str]):
        super().__init__(meanings)
        self.title = title


class ConfigDescription(NamedTuple):
    """The description of a config file that `pyrseg configs` prints.

    summary: the first sentence of its docstring.
    groups: its words, each with its meaning in one line; those that several configs share are `Words`. A user may give at most
      one word of each group.
    """

    summary: str
    groups: Sequence[Mapping[str, str]]


def describe(path: Path) -> ConfigDescription:
    """Read the summary and the words (`VARIANTS`) of a config file."""
    summary = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]
    return ConfigDescription(summary, getattr(load_module(path), "VARIANTS", ()))
