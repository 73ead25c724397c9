# shellcheck shell=bash
# To be sourced: `make_environment REQUIREMENTS` creates the virtual environment .venv in the project's root, or brings it
# up to date, and puts it first on PATH. Nothing is done when the requirements have not changed since the last time.

find_python() {
  local name
  for name in "${PYTHON:-}" python3.12 python3.11 python3 python; do
    [ -n "$name" ] || continue
    # Run it: a launcher on PATH does not mean that there is a Python behind it.
    if "$name" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; then
      echo "$name"
      return
    fi
  done
  echo "error: Python 3.11 or 3.12 with venv was not found; install it, or name it: PYTHON=/path/to/python3.12 bash $0" >&2
  return 1
}

make_environment() {
  local requirements=$1 folder=.venv stamp python
  stamp=$(cat requirements*.txt | cksum | tr ' ' '-')
  if [ "$(cat "$folder/$requirements.stamp" 2>/dev/null)" != "$stamp" ]; then
    if ! "$folder/bin/python" -m pip --version >/dev/null 2>&1; then  # absent, or its creation was interrupted
      python=$(find_python)
      echo "making the virtual environment $PWD/$folder with $("$python" --version)"
      "$python" -m venv --clear "$folder"
    fi
    echo "installing $requirements (one to three minutes, once)"
    "$folder/bin/python" -m pip install --quiet --disable-pip-version-check -r "$requirements"
    echo "$stamp" >"$folder/$requirements.stamp"
  fi
  export PATH="$PWD/$folder/bin:$PATH"
}
