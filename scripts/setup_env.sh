#!/usr/bin/env bash
# Makes .venv and installs the pinned requirements and the project itself, editable, with its command cliff. Sourced by
# the other scripts; leaves PYTHON set.
#   source scripts/setup_env.sh [REQUIREMENTS_FILE]
# Does nothing when .venv already has them. Needs Python 3.10, 3.11 or 3.12.

requirements=${1:-requirements.txt}

find_python() {
  local candidate
  for candidate in python3.12 python3.11 python3.10 python3 python; do
    if "$candidate" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "error: no Python 3.10, 3.11 or 3.12 was found; MindSpore 2.10.0 needs one of them." >&2
  return 2
}

if [[ ! -x .venv/bin/python ]]; then
  base_python=$(find_python) || exit 2
  "$base_python" -m venv .venv
fi
PYTHON=.venv/bin/python
stamp=.venv/$(basename "$requirements").sha256
wanted=$(cat requirements*.txt pyproject.toml | sha256sum)
if [[ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]]; then
  echo "Installing $requirements into .venv (4 GB on disk, some minutes the first time) ..."
  "$PYTHON" -m pip install --quiet --disable-pip-version-check -r "$requirements"
  "$PYTHON" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
  echo "$wanted" > "$stamp"
fi
