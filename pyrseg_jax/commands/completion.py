"""`pyrseg completion SHELL`: print a script that completes modes, flags, keys and their values."""

import argparse
import re
import sys

import shtab

from pyrseg_jax.commands import MODES
from pyrseg_jax.errors import UserError
from pyrseg_jax.run import config_file
from pyrseg_jax.run.command_line import make_parser
from pyrseg_jax.run.keys import keys_of
from pyrseg_jax.run.schema import Config

HINTS = {
    "bash": 'eval "$(pyrseg completion bash)"  # in ~/.bashrc',
    "zsh": 'eval "$(pyrseg completion zsh)"  # in ~/.zshrc, after compinit',
    "fish": "pyrseg completion fish | source  # in ~/.config/fish/config.fish",
}


def show(shell: str | None) -> None:
    """Print the completion script of a shell; raises UserError for a shell that is not in `HINTS`."""
    if shell not in HINTS:
        found = "no shell is named" if shell is None else f"{shell!r} is not a shell that is supported"
        raise UserError(f"{found}: expected `pyrseg completion {'|'.join(HINTS)}`")
    script = shtab.complete(completable_parser(), shell)
    print(_AFTER[shell](script) if shell in _AFTER else script)
    print(f"to use it: {HINTS[shell]}", file=sys.stderr)


# bash splits words at "=", and the function that shtab writes expects a flag and its value as words of their own.
_JOIN_IN_BASH = """
_pyrseg_without_equals() {
  local i cword=0 words=()
  for i in "${!COMP_WORDS[@]}"; do
    if [ "${COMP_WORDS[i]}" != "=" ]; then words+=("${COMP_WORDS[i]}"); elif [ "$i" = "$COMP_CWORD" ]; then words+=(""); fi
    if [ "$i" = "$COMP_CWORD" ]; then cword=$((${#words[@]} - 1)); fi
  done
  COMP_WORDS=("${words[@]}")
  COMP_CWORD=$cword
  _shtab_pyrseg
}
"""


def _complete_after_equals_in_bash(script: str) -> str:
    start, register = script.rsplit("complete -", 1)
    return f"{start}{_JOIN_IN_BASH}\ncomplete -{register.replace('_shtab_pyrseg', '_pyrseg_without_equals')}"


def _complete_after_equals_in_zsh(script: str) -> str:
    """Say that the value of a flag may follow in the same word, after "="."""
    return re.sub(r'"(--[\w.]+)\[(?=.*\]:)', r'"\1=[', script)


_AFTER = {"bash": _complete_after_equals_in_bash, "zsh": _complete_after_equals_in_zsh}


def completable_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line, with the choices of modes, flags and keys."""
    parser = make_parser(MODES)
    choices = {"mode": tuple(MODES), "mode_flag": tuple(MODES), "config": tuple(config_file.packaged())}
    choices["distributed"] = ("auto", "on", "off")
    choices["topic"] = (*MODES, *HINTS, *keys_of(Config))
    for name, key in keys_of(Config).items():
        if key.one_of is not None:
            choices[f"config.{name}"] = tuple(key.one_of.choices())
        elif key.type is bool:
            choices[f"config.{name}"] = ("true", "false")
    for action in parser._actions:  # argparse has no public list of its actions; shtab reads this one, too
        if isinstance(action.metavar, str):  # shtab does not escape the colon, which separates fields in zsh
            action.metavar = re.sub(r"[^\w|]+", "_", action.metavar).strip("_")
        if action.dest in choices:
            action.choices = choices[action.dest]
        elif action.dest in ("workdir", "output"):
            action.complete = shtab.DIRECTORY  # pyright: ignore[reportAttributeAccessIssue]  # shtab's own attribute
        elif action.dest == "input":
            action.complete = shtab.FILE  # pyright: ignore[reportAttributeAccessIssue]
    return parser
