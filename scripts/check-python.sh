#!/bin/sh
# check-python.sh PYTHON: succeed if PYTHON is 3.11 or newer and can make virtualenvs; otherwise say in one line what to
# run. Written for any sh and any Python, since it runs before either is known to be good.
set -eu

python=$1
newest=3.14
oldest=3.11

have() { command -v "$1" >/dev/null 2>&1; }

is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

# The command that installs packages here, as this user would type it.
installer() {
    if [ "$(id -u)" = 0 ]; then sudo=; else sudo='sudo '; fi
    if have apt-get; then echo "${sudo}apt-get install -y"
    elif have dnf; then echo "${sudo}dnf install -y"
    elif have zypper; then echo "${sudo}zypper install -y"
    elif have pacman; then echo "${sudo}pacman -S"
    elif have apk; then echo "${sudo}apk add"
    elif have brew; then echo "brew install"
    fi
}

# The versions that this project runs on, newest first.
versions() {
    minor=${newest#3.}
    while [ "$minor" -ge "${oldest#3.}" ]; do
        echo "3.$minor"
        minor=$((minor - 1))
    done
}

advise_newer_python() {
    for version in $(versions); do
        if have "python$version" && is_new_enough "python$version"; then
            echo "  make test PYTHON=python$version"
            return
        fi
    done
    case $(installer) in
        *apt-get*)
            for version in $(versions); do
                if apt-cache show "python$version-venv" >/dev/null 2>&1; then
                    echo "  $(installer) python$version python$version-venv && make test PYTHON=python$version"
                    return
                fi
            done
            echo "  $(installer) python3 python3-venv    # in a release of your system that has Python $oldest or newer" ;;
        brew*) echo "  $(installer) python@$newest && make test PYTHON=python$newest" ;;
        *dnf*) echo "  $(installer) python$newest && make test PYTHON=python$newest" ;;
        ?*) echo "  $(installer) python3" ;;
        *) echo "  install Python $oldest or newer, and then: make test PYTHON=<its path>" ;;
    esac
}

advise_venv() {
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    case $(installer) in
        *apt-get*) echo "  $(installer) python$version-venv" ;;
        *) echo "  $python -m ensurepip    # or install the package of your system that brings venv and ensurepip" ;;
    esac
}

if ! is_new_enough "$python"; then
    found=$("$python" -c 'import sys; print("it is %d.%d" % sys.version_info[:2])' 2>/dev/null) || found="it cannot be run"
    echo "$python is not Python $oldest or newer: $found. Run:" >&2
    advise_newer_python >&2
    exit 1
fi
if ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
    echo "$python cannot make virtualenvs: ensurepip or venv is missing. Run:" >&2
    advise_venv >&2
    exit 1
fi
