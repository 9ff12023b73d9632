#!/bin/sh
# make-venv.sh PYTHON: make .venv with this project and its tools in it, unless it is there and nothing it was made
# from has changed. Needs the network only when it installs.
set -eu
cd "$(dirname "$0")/.."

python=$1
stamp=.venv/made-from

"$(dirname "$0")/check-python.sh" "$python"

# What .venv depends on: the interpreter, the lists of packages, and this directory, which an editable install points to.
made_from() {
    "$python" -c '
import hashlib, pathlib, sys
print(sys.version_info[:2], sys.base_prefix, pathlib.Path.cwd())
for name in sys.argv[1:]:
    print(name, hashlib.sha256(pathlib.Path(name).read_bytes()).hexdigest())
' pyproject.toml requirements-dev.txt examples/serving/requirements.txt
}

wanted=$(made_from)
if [ -x .venv/bin/python ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
    exit 0
fi

echo "making .venv (once; again when pyproject.toml or requirements-dev.txt change)"
rm -f "$stamp"
"$python" -m venv --clear .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check --use-pep517 \
    --requirement requirements-dev.txt --editable '.[all,testing]'
printf '%s\n' "$wanted" > "$stamp"
