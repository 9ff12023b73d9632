"""What campaigns harm is made beside each other, in threads and processes."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ikvcore._passkeys import hash_passkey
from ikvcore.testing._parallel import spawned
from ikvcore.testing.faults import target
from ikvcore.testing.faults.target import Pair, Target


def test_passkeys_are_as_slow_as_ever_after_stores_were_made_in_two_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first_is_in, second_is_in, first_has_left = threading.Event(), threading.Event(), threading.Event()

    def create_store(*_: object, **__: object) -> Any:
        if not first_is_in.is_set():
            first_is_in.set()
            second_is_in.wait(0.5)
        else:
            second_is_in.set()
            assert first_has_left.wait(60)
        return SimpleNamespace()

    monkeypatch.setattr(target, "create_store", create_store)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(Target.make, tmp_path / "a", Pair())
        assert first_is_in.wait(60)
        second = pool.submit(Target.make, tmp_path / "b", Pair())
        first.result(60)
        first_has_left.set()
        second.result(60)
    assert hash_passkey("secret").startswith("$scrypt$ln=14,")


def test_processes_that_share_a_log_server_make_stores_of_different_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here the server is one home."""
    monkeypatch.setenv("IKV_HOME", str(tmp_path / "home"))
    names = set()
    for number in range(2):
        with spawned(make, tmp_path / str(number)) as result:
            names.add(result())
    assert len(names) == 2


def make(directory: Path) -> str:
    return Target.make(directory, Pair()).description.store_name
