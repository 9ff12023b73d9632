"""One home and one zygote for all the tests of a file: an account's passkey is slow to verify on purpose."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ikvcore.testing.faults.target import Pair
from ikvcore.testing.faults.zygote import Zygote


@pytest.fixture(scope="module")
def faults_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("faults-home")


@pytest.fixture(autouse=True)
def _home(faults_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IKV_HOME", str(faults_home))


@pytest.fixture(scope="module")
def zygote(faults_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    before = os.environ.get("IKV_HOME")
    os.environ["IKV_HOME"] = str(faults_home)
    try:
        with Zygote(Pair().with_durability("process-crash"), tmp_path_factory.mktemp("zygote")) as zygote:
            yield zygote
    finally:
        if before is None:
            os.environ.pop("IKV_HOME", None)
        else:
            os.environ["IKV_HOME"] = before
