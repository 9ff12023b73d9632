"""A service in a process of its own, distributions that are built and installed, and odd backends."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ikvcore import _registry
from ikvcore._status import Status
from ikvcore.clientoptions import ClientOptions
from ikvcore.tokens import Token

PATIENCE = 60.0

SERVICE = """
import json, os, sys
out, sys.stdout = sys.stdout, sys.stderr
from pathlib import Path
from ikvcore.clientoptions import ClientOptions
from ikvcore.factory import create_new_reader
from ikvcore.models import Secret
from ikvcore.tokens import Token
given = json.loads(sys.argv[1])
given["account_passkey"] = Secret(given["account_passkey"])
reader = create_new_reader(ClientOptions(**given, console_logging="ERROR"))
reader.startup(timeout=60, allow_stale=True)
print("ready", file=out, flush=True)
for line in sys.stdin:
    reader.wait_for(Token.parse(line.strip()), timeout=60)
    print(reader.count(), file=out, flush=True)
reader.shutdown()
"""

ODD_BACKENDS = '''
"""LMDB, but not shared ("solo"), without Verify ("mute") and so damaged that reading it all is deadly ("fragile")."""
import dataclasses, os, signal
from ikv_backends import lmdb
from ikvcore._kvstorage import KeyValueStorage
from ikvcore.hookspecs import hookimpl
from ikvcore.models import Sharing

class Mute:
    def __init__(self, storage):
        for name in ("apply", "get", "get_many", "scan", "count", "read_meta", "scan_meta", "close"):
            setattr(self, name, getattr(storage, name))

class Fragile(KeyValueStorage):
    def verify(self):
        os.kill(os.getpid(), signal.SIGBUS)

class Plugin:
    def __init__(self, name, wrap, sharing):
        self.name, self.wrap, self.sharing = name, wrap, sharing

    @hookimpl
    def ikv_backend_info(self):
        return dataclasses.replace(lmdb.ikv_backend_info(), name=self.name, sharing=self.sharing)

    @hookimpl
    def ikv_open_backend(self, context):
        return self.wrap(lmdb.ikv_open_backend(context))

solo = Plugin("solo", lambda engine: engine, Sharing.ONE_PROCESS)
mute = Plugin("mute", lambda engine: Mute(KeyValueStorage(engine, max_key_bytes=511)), Sharing.SHARED)
fragile = Plugin("fragile", lambda engine: Fragile(engine, max_key_bytes=511), Sharing.SHARED)
'''


class Service:
    """A process with a reader that is started."""

    def __init__(self, options: ClientOptions) -> None:
        assert options.account_passkey is not None
        given = {
            name: getattr(options, name)
            for name in ("store_name", "account_id", "backend", "transport", "partitions", "on_bad_event", "history")
        }
        given |= {
            "account_passkey": options.account_passkey.reveal(),
            "mount_directory": str(options.mount_directory),
            "backend_options": dict(options.backend_options),
            "transport_options": dict(options.transport_options),
        }
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVICE, json.dumps(given)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        if self._line() != "ready":
            self.end()
            raise AssertionError("the service did not start")
        # With nothing to catch up on it may be ready before its loop has said a word.
        while options.mount_directory is not None and Status.read(options.mount_directory) is None:
            assert self.process.poll() is None

    @property
    def pid(self) -> int:
        return self.process.pid

    def documents(self, token: Token) -> int:
        """How many it has once it shows what the token stands for."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{token}\n")
        self.process.stdin.flush()
        return int(self._line())

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def stand_still(self) -> None:
        """Until it is sent SIGCONT."""
        self.process.send_signal(signal.SIGSTOP)
        os.waitpid(self.pid, os.WUNTRACED)

    def end(self, *, kill: bool = False) -> None:
        if kill:
            self.process.kill()
        self.process.communicate(timeout=PATIENCE)


@pytest.fixture
def start_service() -> Iterator[Callable[[ClientOptions], Service]]:
    """`start_service(options)`: a process that ingests into the mount of `options`; `end()` shuts it down."""
    started: list[Service] = []

    def start(options: ClientOptions) -> Service:
        started.append(Service(options))
        return started[-1]

    yield start
    for service in started:
        if service.process.poll() is None:
            service.end(kill=True)


@pytest.fixture
def odd_backends(tmp_path: Path) -> Iterator[Path]:
    """The backends of ODD_BACKENDS, one that cannot be imported and one whose driver is missing; where they lie."""
    site = tmp_path / "site"
    info = site / "odd-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "odd_backends.py").write_text(ODD_BACKENDS)
    (site / "odd_broken.py").write_text("raise ValueError('this\\nbreaks')")
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: odd\nVersion: 1.0\nProvides-Extra: absent\n"
        "Requires-Dist: no-such-driver; extra == 'absent'\n"
    )
    names = "".join(f"{name} = odd_backends:{name}\n" for name in ("solo", "mute", "fragile"))
    (info / "entry_points.txt").write_text(f"[ikv_backends]\n{names}broken = odd_broken\nabsent = odd_absent\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        patch.setenv("PYTHONPATH", str(site))
        _registry.refresh()
        yield site
    _registry.refresh()
    sys.modules.pop("odd_backends", None)


# -- distributions, built and installed --------------------------------------------------------

WHEELS = Path(__file__).with_name("wheels")
"""Sources of the distributions: a directory each, with its modules and what to say of them in wheel.toml."""


@pytest.fixture(scope="session")
def installed_wheels(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A PYTHONPATH on which pip has installed all of WHEELS; an older release of one lies behind the newer."""
    built = tmp_path_factory.mktemp("wheels")
    wheels = {source.name: _build_wheel(source, built) for source in sorted(WHEELS.iterdir())}
    older = wheels.pop("acme_stores_older")
    sites = [tmp_path_factory.mktemp("site") for _ in range(2)]
    _pip_install(wheels.values(), sites[0])
    _pip_install([older], sites[1])
    return os.pathsep.join(map(str, sites))


def _build_wheel(source: Path, into: Path) -> Path:
    """A wheel, as a build backend would make it of these sources."""
    told = tomllib.loads((source / "wheel.toml").read_text())
    stem = f"{told['name'].replace('-', '_').replace('.', '_')}-{told['version']}"
    files = {module.name: module.read_text() for module in source.glob("*.py")}
    files |= {f"{stem}.dist-info/{name}": text for name, text in _metadata(told).items()}
    record = io.StringIO()
    csv.writer(record).writerows([name, "", ""] for name in [*files, f"{stem}.dist-info/RECORD"])
    wheel = into / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in {**files, f"{stem}.dist-info/RECORD": record.getvalue()}.items():
            archive.writestr(name, text)
    return wheel


def _metadata(told: Mapping[str, Any]) -> dict[str, str]:
    headers = ["Metadata-Version: 2.1", f"Name: {told['name']}", f"Version: {told['version']}"]
    headers += [f"Requires-Dist: {each}" for each in told.get("requires", ())]
    headers += [f"Provides-Extra: {each}" for each in told.get("extras", ())]
    groups = [
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in entries.items())
        for group, entries in told["entry-points"].items()
    ]
    return {
        "METADATA": "\n".join(headers) + "\n",
        "WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "entry_points.txt": "\n".join(groups),
    }


def _pip_install(wheels: Iterable[Path], target: Path) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    command += ["--no-index", "--no-deps", "--no-compile", "--target", str(target), *map(str, wheels)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
