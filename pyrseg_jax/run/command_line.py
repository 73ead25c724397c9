"""Read the command line: a mode, its flags, and values of configuration keys (`--config.KEY=VALUE`)."""

import argparse
import dataclasses
import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

from pyrseg_jax.errors import UserError
from pyrseg_jax.run import config as config_lib
from pyrseg_jax.run import keys
from pyrseg_jax.run.flags import FLAGS
from pyrseg_jax.run.flags import OUTPUTS as OUTPUTS
from pyrseg_jax.run.flags import Flag as Flag

SHARED_FLAGS = ("config", "workdir", "debug")
# Only modes that run in several processes need these, but every mode accepts them: inside a cluster's job, a mode that runs in
# one process needs --distributed=off.
PROCESS_FLAGS = ("distributed", "coordinator", "num_processes", "process_id")
DEFAULT_MODE = "train"


@dataclasses.dataclass(frozen=True)
class Arguments:
    """A parsed command line.

    Attributes:
      mode: a name in the table of modes.
      topic: the word after the mode, for modes that take one.
      words: all words after the mode, for modes that take several.
      flags: a value for each of `FLAGS`.
      changes: text by configuration key, for example `{"training.steps": "7"}`.
      asks_for_version: whether --version was given.
    """

    mode: str
    topic: str | None
    flags: Mapping[str, Any]
    changes: Mapping[str, Any]
    asks_for_version: bool = False
    words: tuple[str, ...] = ()


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are ours to word."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message.removeprefix('argument ')}; --help lists the flags")


def make_parser(modes: Iterable[str]) -> argparse.ArgumentParser:
    """Build the parser, which knows every flag and every configuration key; shell completion is made from it, too."""
    parser = _Parser("pyrseg", add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    parser.add_argument("mode", nargs="?", help="what to do")
    about = "for help: a mode, a flag or a key; for completion: a shell; for compare, push, report and serve: runs"
    parser.add_argument("topic", nargs="*", help=about)
    parser.add_argument("--mode", dest="mode_flag", metavar="MODE", help="what to do: " + ", ".join(modes))
    parser.add_argument("--help", "-h", action="store_true", help="explain the command, a mode or a key")
    parser.add_argument("--version", action="store_true", help="print the version")
    for name, flag in FLAGS.items():
        action = "append" if flag.is_repeated else "store"
        about = flag.help.replace("%", "%%")
        parser.add_argument(f"--{name}", metavar=flag.metavar or "BOOL", help=about, action=action)
    for name, key in keys.keys_of(config_lib.Config).items():
        parser.add_argument(f"--config.{name}", metavar="VALUE", help=key.description.replace("%", "%%"))
    for name in keys.group_names(config_lib.Config):  # so that a value for a whole group is refused by the schema
        parser.add_argument(f"--config.{name}", help=argparse.SUPPRESS)
    return parser


def parse(argv: Sequence[str], modes: Mapping[str, Any]) -> Arguments:
    """Read the arguments after the program's name; without any, the mode is `help`.

    Raises:
      UserError: in one line, for anything that is wrong.
    """
    if not argv:
        argv = ["help"]
    found, left = make_parser(modes).parse_known_intermixed_args(_spell_out(argv))
    values = vars(found)
    words = [word for word in (values.get("mode"), *(values.get("topic") or ())) if word is not None]
    if "help" in values or "version" in values:  # whatever else is on the line, right or wrong
        topic = next((word for word in (*words, values.get("mode_flag")) if word not in (None, "help")), None)
        return Arguments("help", topic, {name: flag.default for name, flag in FLAGS.items()}, {}, "version" in values)
    for word in left:
        raise _unknown(word)
    mode, words = _choose_mode(words, values.get("mode_flag"), modes)
    flags = {name: _read_flag(name, values.get(name)) for name in FLAGS}
    about = keys.keys_of(config_lib.Config)
    changes = {
        name: keys.parse_text(about[name], text) if name in about else text
        for option, text in values.items()
        if (name := option.removeprefix("config.")) != option
    }
    if modes[mode].names_run and words:
        flag = "model" if modes[mode].names_model and _is_model(words[0]) else "workdir"
        flags[flag] = _name_run(words[0], flag, flags[flag])
    return Arguments(mode, words[0] if words else None, flags, changes, words=tuple(words))


def asks_for_debug(argv: Sequence[str]) -> bool:
    """Return whether a command line asks for tracebacks, as far as one can tell before it is parsed: it may be wrong."""
    answer = False
    for word, following in zip(argv, [*argv, ""][1:], strict=True):
        name, has_value, value = word.lstrip("-").partition("=")
        if word.startswith("-") and name == "debug":
            value = value if has_value else following
            answer = value.lower() not in ("false", "0")
        elif word == "--nodebug":
            answer = False
    return answer


def _choose_mode(words: list[str], flag: str | None, modes: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Return the mode and the words after it from the words of the command line and the value of --mode."""
    if flag is not None:
        words = [flag, *(words[1:] if words[:1] == [flag] else words)]
        if flag not in modes:
            raise UserError(f"--mode={flag}: expected one of {', '.join(modes)}")
    mode = words[0] if words else DEFAULT_MODE
    if mode not in modes:
        near = difflib.get_close_matches(mode, modes, 1)
        hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(modes)}."
        raise UserError(f"{mode!r} is not a mode: {hint} Flags are written --name=value; --help lists them")
    for word in words[1 + modes[mode].most_words :]:
        raise UserError(f"{word!r} is not a flag: flags are written --name=value; --help lists them")
    return mode, words[1:]


def _name_run(word: str, flag: str, given: str | None) -> str:
    """Return the run or the model that the word after the mode names; raises UserError if the flag names another."""
    if given and given != word:
        what = "runs" if flag == "workdir" else "models"
        raise UserError(f"{word!r} and --{flag}={given} name two {what}: name one of them")
    return word


def _is_model(word: str) -> bool:
    """Return whether a word names a packaged model, one in the hub, or a file. A model folder can be read as a run, too."""
    from pyrseg_jax.run.packaged_models import find_model, packaged_models
    from pyrseg_jax.storage.hub import is_address

    return is_address(word) or find_model(word).is_file() or find_model(word) == packaged_models().get(word)


def _spell_out(argv: Sequence[str]) -> list[str]:
    """Write every argument the way argparse expects it.

    `-name` becomes `--name`, which earlier versions accepted, too, and `--dry-run` becomes `--dry_run`. A switch without a value,
    or with a leading `no`, gets its value.
    """
    about = keys.keys_of(config_lib.Config)
    switches = {f"--config.{name}" for name, key in about.items() if key.type is bool}
    switches |= {f"--{name}" for name, flag in FLAGS.items() if not flag.metavar}
    result = []
    for word, following in zip(argv, [*argv, ""][1:], strict=True):
        if re.match(r"-[a-z]\w", word):
            word = f"-{word}"
        name, has_value, value = word.partition("=")
        if name.startswith("--") and name[2:].replace("-", "_") in FLAGS:
            word = "--" + name[2:].replace("-", "_") + has_value + value
        positive = re.sub(r"^--no", "--", word)
        if word in switches and following.lower() not in ("true", "false", "1", "0"):
            word = f"{word}=true"
        elif positive != word and positive in switches:
            word = f"{positive}=false"
        result.append(word)
    return result


def _read_flag(name: str, text: Any) -> Any:
    if text is None:
        return FLAGS[name].default
    if isinstance(text, list):
        return [_read_flag(name, one) for one in text]
    try:
        return FLAGS[name].read(text)
    except ValueError as error:
        raise UserError(f"--{name}={text}: {error}") from error


def check_flags(arguments: Arguments, takes: Sequence[str], needs: Sequence[str], without_config: str = "") -> None:
    """Raise UserError for a flag that the mode does not take, or for one that it needs and that is missing.

    Args:
      arguments: the command line.
      takes, needs, without_config: see `commands.Mode`.
    """
    if without_config:  # whatever seems to choose a run would be ignored
        ignored = [name for name in ("config", "workdir") if arguments.flags[name] is not None]
        ignored += [f"config.{name}" for name in arguments.changes]
        if ignored:
            raise UserError(f"--{ignored[0]} is not a flag of {arguments.mode}: {without_config}")
    for name, flag in FLAGS.items():
        is_given = arguments.flags[name] != flag.default
        if is_given and name not in (*SHARED_FLAGS, *PROCESS_FLAGS, *takes):
            raise UserError(
                f"--{name} is not a flag of {arguments.mode}; `pyrseg help {arguments.mode}` lists its flags"
            )
    if any(arguments.flags[name] is None for name in needs):
        listed = " and ".join(f"--{name}={FLAGS[name].metavar}" for name in needs)
        raise UserError(f"{arguments.mode} needs {listed}")


def _unknown(word: str) -> UserError:
    name = word.partition("=")[0]
    if name.startswith("--config."):
        return config_lib.unknown_key(name.removeprefix("--config."))
    if not name.startswith("-"):
        return UserError(f"{word!r} is not a flag: flags are written --name=value; --help lists them")
    near = difflib.get_close_matches(name, [f"--{flag}" for flag in (*FLAGS, "mode", "help", "version")], 1)
    hint = f"did you mean {near[0]}? " if near else ""
    return UserError(f"{name} is not a flag: {hint}--help lists the flags")
