"""Which storage is read, told apart from what was read before: between threads, and where a change-over fails."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ikvcore import _mount
from ikvcore._damage import Damage
from ikvcore._generations import Generations
from ikvcore._mount import Manifest, Mount
from ikvcore._opened import Opened
from ikvcore._rebuild import Rebuild
from ikvcore.errors import MountError, ReplicaDamagedError, ShutDownError, StorageError
from ikvcore.models import Bounds, StoreDescription


class Opening:
    """A storage that only opens and closes."""

    def __init__(self, directory: Path | None) -> None:
        self.directory = directory
        self.closed = False
        self.failure: StorageError | None = None

    def close(self) -> None:
        self.closed = True
        if self.failure is not None:
            raise self.failure


@pytest.fixture
def mount(tmp_path: Path) -> Mount:
    store = StoreDescription(store_name="s", account_id="a", identity="i", primary_key="id")
    return Mount.open(tmp_path, Manifest(description=store, backend="b", partitions=(0,), history="complete"))


@pytest.fixture
def generations(mount: Mount) -> Any:
    opened: Any = Opening  # as much of a Storage as is asked for here
    return Generations(mount, opened)


def test_a_late_read_of_a_replaced_generation_says_nothing_of_its_successor(generations: Any, mount: Mount) -> None:
    damaged = generations.storage
    assert generations.found_damaged("a read", damaged)
    generations.change_over(*generations.begin_next())
    assert not generations.found_damaged("a read that had begun before", damaged)
    assert generations.damage is None
    assert Damage.read(mount.path, "gen-2") is None


def test_a_finding_that_is_not_written_yet_is_not_forgotten(generations: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that reads notes it while the loop looks what others found."""

    def read(*_: object) -> None:
        generations.found_damaged("a read", generations.storage)

    monkeypatch.setattr(Damage, "read", read)
    monkeypatch.setattr(Damage, "write", lambda *_: None)
    generations.refresh()
    assert generations.damage.reason == "a read"


def test_a_generation_that_became_current_is_never_removed(
    generations: Any, mount: Mount, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The change-over failed, but only after CURRENT had been replaced."""
    generations.found_damaged("a read", generations.storage)
    following = generations.begin_next()
    replace_file = _mount.replace_file

    def late(*arguments: Any) -> None:
        replace_file(*arguments)
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(_mount, "replace_file", late)
        with pytest.raises(MountError):
            generations.change_over(*following)
    generations.abandon(*following)
    assert mount.generation() == following[0]


def test_a_generation_that_cannot_be_filled_is_removed(generations: Any, mount: Mount) -> None:
    generations.found_damaged("a read", generations.storage)
    made = []

    class Whole:
        def bounds(self) -> dict[int, Bounds]:
            return {0: Bounds(0, 5, complete=True)}

    def make_ingester(storage: Any) -> Any:
        made.append(storage)
        raise StorageError("of this test")

    transport: Any = Whole()
    with pytest.raises(StorageError, match="of this test"):
        Rebuild(generations, transport, make_ingester, (0,), may_halt=True)
    assert made[0].closed
    assert not made[0].directory.exists()


def test_all_are_closed_where_one_fails(generations: Any) -> None:
    damaged = generations.storage
    generations.found_damaged("a read", damaged)
    generations.change_over(*generations.begin_next())
    current = generations.storage
    current.failure = damaged.failure = StorageError("of this test")
    with pytest.raises(StorageError, match="of this test"):
        generations.close()
    assert damaged.closed
    assert current.closed
    generations.close()


def test_what_is_closed_is_not_called_damaged(generations: Any) -> None:
    generations.close()
    with pytest.raises(ShutDownError):
        _ = generations.storage


def test_damage_ends_reads_at_once(generations: Any) -> None:
    generations.found_damaged("a read", generations.storage)
    with pytest.raises(ReplicaDamagedError, match="a read"):
        _ = generations.storage


@pytest.mark.parametrize(
    ("name", "read"), [("damage.json", lambda path: Damage.read(path, "gen-1")), ("opened.json", Opened.suspect)]
)
def test_a_file_that_cannot_be_opened_is_no_damage(mount: Mount, name: str, read: Callable[[Path], object]) -> None:
    """Say, too many files are open: a replica is not built anew for that."""
    (mount.path / name).mkdir()  # no process, not even root's, can read it
    with pytest.raises(MountError, match=name):
        read(mount.path)


def test_a_storage_that_is_opened_again_leaves_the_old_one_open_for_reads_that_had_begun(generations: Any) -> None:
    before = generations.storage
    generations.reopen()
    assert generations.storage is not before
    assert not before.closed
    generations.close()
    assert before.closed
