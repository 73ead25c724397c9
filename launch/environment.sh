# shellcheck shell=bash
# Source this file from the project's root. `make_environment REQUIREMENTS…` creates the virtual environment .venv there or brings
# it up to date, and puts it first on PATH. It does nothing if the requirements have not changed since the last time.

# The versions that the project is tried with come first; a newer one is taken only if there is nothing else.
TRIED_PYTHONS=(python3.12 python3.13 python3.11)

# Succeeds if the given command is a Python of the given versions that can create virtual environments. It runs the command: a
# launcher on PATH does not mean that there is a Python behind it.
is_python() { # command, condition on `version`
  "$1" -c "import sys, venv, ensurepip; version = sys.version_info[:2]; sys.exit(not $2)" 2>/dev/null
}

find_python() {
  local name
  if [ -n "${PYTHON:-}" ]; then
    if is_python "$PYTHON" 'version >= (3, 11)'; then
      echo "$PYTHON"
      return
    fi
    echo "error: PYTHON=$PYTHON is not Python 3.11 or later with venv" >&2
    return 1
  fi
  for name in "${TRIED_PYTHONS[@]}" python3 python; do
    if is_python "$name" '(3, 11) <= version <= (3, 13)'; then
      echo "$name"
      return
    fi
  done
  for name in python3 python; do
    if is_python "$name" 'version > (3, 13)'; then
      echo "note: $("$name" --version) is newer than 3.13, the last version that this project was tried with" >&2
      echo "$name"
      return
    fi
  done
  echo "error: found no Python 3.11 or later with venv. Install one, or name it: PYTHON=/path/to/python3.12 bash $0" >&2
  return 1
}

# uv takes less than half of pip's time. It does not read pip's configuration, which may name the only registry that can be reached,
# so where uv fails, pip installs.
install_packages() { # python of a virtual environment, arguments of pip install …
  local python=$1 said compile=()
  shift
  # Where Python may not write bytecode, as in many containers, every launch would compile a thousand modules again, for two seconds.
  [ -z "${PYTHONDONTWRITEBYTECODE:-}" ] || compile=(--compile-bytecode)
  if "$python" -m pip install --quiet --disable-pip-version-check --retries 0 uv 2>/dev/null; then
    said=$("$python" -m uv pip install --quiet "${compile[@]}" --python "$python" "$@" 2>&1) && return
    echo "note: uv could not install them, so pip tries: ${said%%$'\n'*}"
  fi
  "$python" -m pip install --quiet --disable-pip-version-check "$@"
}

make_environment() { # requirements file …
  local folder=.venv stamp python requirements options=()
  stamp=$(cat requirements*.txt pyproject.toml | cksum | tr ' ' '-')
  for requirements in "$@"; do
    [ "$(cat "$folder/$requirements.stamp" 2>/dev/null)" = "$stamp" ] || options+=(-r "$requirements")
  done
  if [ ${#options[@]} -gt 0 ]; then
    # Without pip, the environment is absent or its creation was interrupted.
    if ! "$folder/bin/python" -m pip --version >/dev/null 2>&1; then
      python=$(find_python)
      echo "creating the virtual environment $PWD/$folder with $("$python" --version)"
      "$python" -m venv --clear "$folder"
    fi
    echo "installing ${options[*]//-r /} (up to three minutes, only when the requirements change)"
    # Editable, so that `pyrseg` runs the code of this checkout.
    install_packages "$folder/bin/python" "${options[@]}" --editable .
    for requirements in "$@"; do echo "$stamp" >"$folder/$requirements.stamp"; done
  fi
  export PATH="$PWD/$folder/bin:$PATH"
}
