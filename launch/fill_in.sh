#!/usr/bin/env bash
# Shared by the scripts that fill in a file for kubectl, which source it: print or run a command, and write the values of placeholders.

# Runs a command, or with `is_dry=yes` of the script prints it.
run() { # command …
  if [ "${is_dry:-no}" = yes ]; then printf '%q ' "$@"; echo; else "$@"; fi
}

# Prints the words as a JSON list of strings.
as_json() { # word …
  local word separator=""
  printf '['
  for word in "$@"; do
    word=${word//\\/\\\\}
    printf '%s"%s"' "$separator" "${word//\"/\\\"}"
    separator=", "
  done
  printf ']'
}
# Prints the sed command that replaces a placeholder by a value.
# shellcheck disable=SC2016 # the placeholders in the file look like the shell's
put() { # placeholder, value
  local value=$2
  value=${value//\\/\\\\}
  value=${value//|/\\|}
  printf 's|${%s}|%s|g\n' "$1" "${value//&/\\&}"
}
