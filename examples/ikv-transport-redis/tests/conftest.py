"""A Redis server of the tests' own, on a free port of this machine."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest
import redis

PATIENCE = 60.0


@pytest.fixture(scope="session")
def redis_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a server that keeps what it acknowledges; it ends with the tests."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed; apt-get install redis-server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    settings = {"bind": "127.0.0.1", "port": port, "appendonly": "yes", "appendfsync": "always", "save": ""}
    arguments = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
    directory = tmp_path_factory.mktemp("redis")
    server = subprocess.Popen([program, *arguments], cwd=directory, stdout=subprocess.DEVNULL)
    try:
        _wait_for(server, port)
        yield port
    finally:
        server.kill()
        server.wait()


def _wait_for(server: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + PATIENCE
    with redis.Redis("127.0.0.1", port) as client:
        while True:
            try:
                client.ping()
            except redis.ConnectionError:
                assert server.poll() is None, "redis-server ended at once"
                assert time.monotonic() < deadline, "redis-server did not answer"
                time.sleep(0.02)
            else:
                return
