"""Power losses, in the short form; and how what is left of files is made up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ikvcore.testing.faults import powerloss, syscalls
from ikvcore.testing.faults.campaigns import CAMPAIGNS
from ikvcore.testing.faults.powerloss_left import left_behind, put, whole
from ikvcore.testing.faults.powerloss_writes import (
    Acknowledged,
    Cut,
    Named,
    Synced,
    SyncedNames,
    Trace,
    Written,
    read_trace,
)
from ikvcore.testing.faults.target import Pair


def test_power_losses(tmp_path: Path, requires_part: Callable[..., None]) -> None:
    requires_part("strace", available=syscalls.can_trace(), how=syscalls.STRACE_HOW)
    campaign = CAMPAIGNS["power-losses"]
    result = campaign.load()(directory=tmp_path / "run", seed=1, pair=Pair(), **campaign.short)
    result.require()
    assert [row.fault for row in result.rows] == [
        "power loss, log with power-loss",
        "power loss, replica with power-loss",
        "power loss, log with process-crash",
        "power loss, replica with process-crash",
    ]


def test_a_backend_that_says_power_loss_and_does_not_sync_would_be_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, requires_part: Callable[..., None]
) -> None:
    requires_part("strace", available=syscalls.can_trace(), how=syscalls.STRACE_HOW)
    lying = Pair(backend="sqlite", backend_options={"durability": "process-crash"})
    monkeypatch.setattr(Pair, "with_durability", lambda pair, word: pair)
    monkeypatch.setattr(powerloss, "_plays", lambda pair: [("replica", "power-loss")])
    result = powerloss.run(variants=0, cuts=1, seed=1, directory=tmp_path / "run", pair=lying)
    assert any("behind" in violation for violation in result.violations)


def test_a_log_whose_syncs_are_off_would_be_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, requires_part: Callable[..., None]
) -> None:
    """The last writes that it has acknowledged are gone."""
    requires_part("strace", available=syscalls.can_trace(), how=syscalls.STRACE_HOW)
    off = Pair(transport_options={"durability": "process-crash"})
    monkeypatch.setattr(Pair, "with_durability", lambda pair, word: pair)
    monkeypatch.setattr(powerloss, "_plays", lambda pair: [("log", "power-loss")])
    result = powerloss.run(variants=0, cuts=1, seed=1, directory=tmp_path / "run", pair=off)
    assert any("lost" in violation for violation in result.violations), result.violations


# -- what may be left ----------------------------------------------------------------------------


def contents(trace: Trace, cut: int, variants: int) -> set[bytes | None]:
    """What file "f" may hold."""
    return {left.get("f") for left in left_behind(trace, cut, 1, variants)}


def test_what_was_synced_stays_and_what_was_not_may_go() -> None:
    steps = [
        Written(0, 0, b"a"),
        Synced(0, 1),
        Written(0, 1, b"b"),
        Acknowledged("1"),
        Written(0, 2, b"c", through=True),
        Synced(0, 5),
    ]
    trace = Trace({"f": 0}, {0: b"...."}, steps)
    assert contents(trace, 0, 3) == {b"...."}
    assert contents(trace, 2, 3) == {b"a..."}
    assert contents(trace, 3, 20) == {b"a...", b"ab.."}
    # The third is under way, and the second still nowhere for sure.
    assert contents(trace, 5, 40) == {b"a...", b"ab..", b"a.c.", b"abc."}
    assert contents(trace, 6, 3) == {b"abc."}
    assert whole(trace) == {"f": b"abc."}


def test_a_write_through_the_cache_keeps_nothing_but_itself() -> None:
    steps = [Written(0, 0, b"a"), Written(0, 1, b"b", through=True), Acknowledged("1")]
    assert contents(Trace({"f": 0}, {0: b".."}, steps), 3, 20) == {b".b", b"ab"}


def test_what_was_written_while_a_sync_was_under_way_may_go() -> None:
    steps = [Written(0, 0, b"a"), Written(0, 1, b"b"), Synced(0, 1), Acknowledged("1")]
    assert contents(Trace({"f": 0}, {0: b".."}, steps), 4, 20) == {b"a.", b"ab"}


def test_a_long_write_is_torn_at_sectors() -> None:
    trace = Trace({"f": 0}, {0: b""}, [Written(0, 0, b"x" * 512 + b"y" * 512)])
    assert {b"", b"x" * 512, b"x" * 512 + b"y" * 512, bytes(512) + b"y" * 512} <= contents(trace, 1, 60)


def test_what_came_after_a_length_that_is_lost_is_lost_too() -> None:
    trace = Trace({"f": 0}, {0: b"abcd"}, [Cut(0, 1), Written(0, 1, b"x")])
    assert contents(trace, 2, 60) == {b"abcd", b"a", b"ax"}


def test_names_are_kept_in_their_order_and_by_a_sync_of_their_directory() -> None:
    steps = [
        Named(None, "new", 1),
        Written(1, 0, b"2"),
        Synced(1, 2),
        Named("new", "f", 1),
        Named(None, "g", 2),
        SyncedNames(".", 4),
        Acknowledged("1"),
    ]
    trace = Trace({"f": 0}, {0: b"1"}, steps)

    def found(cut: int) -> set[tuple[tuple[str, bytes | None], ...]]:
        return {tuple(sorted(left.items())) for left in left_behind(trace, cut, 1, 40)}

    before, both = (("f", b"1"),), (("f", b"1"), ("new", b"2"))
    # A synced file may have no name yet.
    assert found(3) == {before, both}
    assert found(4) == {before, both, (("f", b"2"),)}
    assert found(7) == {(("f", b"2"),), (("f", b"2"), ("g", b""))}


def test_a_file_whose_directory_is_lost_is_lost(tmp_path: Path) -> None:
    put(tmp_path, {"there": None, "there/f": b"1", "gone/f": b"2", "f": b"3"})
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    assert found == {"there", "there/f", "f"}


# -- what strace says ----------------------------------------------------------------------------


def escaped(text: object) -> str:
    return "".join(f"\\x{byte:02x}" for byte in str(text).encode())


def test_a_trace_is_read(tmp_path: Path) -> None:
    place, said = tmp_path / "a place", tmp_path / "said"
    file, log = escaped(place / "f"), escaped(place / "log")
    where = f"AT_FDCWD<{escaped(tmp_path)}>"
    lines = [
        f'7 openat({where}, "{file}", O_RDWR|O_CREAT, 0600) = 5<{file}>',
        f'7 openat({where}, "{file}", O_WRONLY|O_DSYNC) = 6<{file}>',
        f'8 pwrite64(5<{file}>, "\\x41\\x42", 2, 4096 <unfinished ...>',
        f'7 write(9<{escaped(said)}>, "\\x31\\x0a", 2) = 2',
        f"9 fsync(5<{file}> <unfinished ...>",
        "8 <... pwrite64 resumed>) = 2",
        "9 <... fsync resumed>) = 0",
        f"7 lseek(5<{file}>, 100, SEEK_SET) = 100",
        f'7 writev(5<{file}>, [{{iov_base="\\x01", iov_len=1}}, {{iov_base="\\x02", iov_len=1}}], 2) = 2',
        f"7 fdatasync(5<{file}>) = 0",
        f'7 pwrite64(6<{file}>, "\\x43", 1, 0) = 1',
        f'7 pwrite64(5<{file}>, "\\x44", 1, 0) = -1 EIO (Input/output error)',
        f'7 pwrite64(5<{escaped(tmp_path / "other")}>, "\\x44", 1, 0) = 1',
        f'7 openat({where}, "{log}", O_WRONLY|O_CREAT|O_APPEND, 0600) = 7<{log}>',
        f'7 write(7<{log}>, "\\x61\\x62\\x63", 3) = 2',
        f'7 write(7<{log}>, "\\x64", 1) = 1',
        f"7 ftruncate(7<{log}>, 1 <unfinished ...>",
        "7 <... ftruncate resumed>)              = 0",
        f"7 fallocate(7<{log}>, FALLOC_FL_KEEP_SIZE, 0, 99) = 0",
        f"7 fallocate(7<{log}>, 0, 2, 1) = 0",
        f'7 mkdir("{escaped(place / "d")}", 0700) = 0',
        f'7 renameat({where}, "{log}", {where}, "{escaped(place / "d/log")}") = 0',
        f'7 openat({where}, "{escaped(place)}", O_RDONLY|O_DIRECTORY) = 8<{escaped(place)}>',
        f"7 fsync(8<{escaped(place)}>) = 0",
        f'7 unlinkat(8<{escaped(place)}>, "{escaped("f")}", 0) = 0',
        f'7 pwrite64(5<{file}>(deleted), "\\x44", 1, 0) = 1',
        f'9 rename("{escaped(place / "tmp")}", "{escaped(place / "d/log")}" <unfinished ...>',
        f"6 lseek(5<{escaped(place / 'died')}>, 0, SEEK_CUR) = ?",  # they ended inside of it
        f"5 fsync(5<{escaped(place / 'too')}> <unfinished ...>",
        "5 <... fsync resumed>)   = ?",
    ]
    (tmp_path / "trace").write_text("\n".join(lines))
    trace = read_trace(tmp_path / "trace", place, said, {"f": b"1"})
    assert trace.names == {"f": 0}
    assert trace.contents == {0: b"1"}
    assert trace.unfinished == {"tmp", "d/log", "died", "too"}
    assert trace.steps == [
        Acknowledged("1"),
        Written(0, 4096, b"AB"),
        Synced(0, 1),  # begun before that write had returned
        Written(0, 100, b"\x01\x02"),
        Synced(0, 4),
        Written(0, 0, b"C", through=True),
        Named(None, "log", 1),
        Written(1, 0, b"ab"),
        Written(1, 2, b"d"),
        Cut(1, 1),
        Cut(1, 3),
        Named(None, "d", None),
        Named("log", "d/log", 1),
        SyncedNames(".", 13),
        Named("f", None, 0),
    ]
    assert whole(trace) == {"d": None, "d/log": b"a\0\0"}


@pytest.mark.parametrize("call", ["sendfile", "link"])
def test_a_run_is_refused_that_changes_files_in_a_way_that_cannot_be_played_back(tmp_path: Path, call: str) -> None:
    file = escaped(tmp_path / "f")
    (tmp_path / "trace").write_text(f'7 {call}(5<{file}>, "{file}", 7) = 7\n')
    with pytest.raises(RuntimeError, match="is not played back"):
        read_trace(tmp_path / "trace", tmp_path, tmp_path / "said", {})


def test_a_record_that_does_not_come_to_the_files_is_refused() -> None:
    """Something was written in a way that is not traced; but for the files that engines map."""
    powerloss._compare({"f": b"1", "lock.mdb": b"1"}, {"f": b"1", "lock.mdb": b"2", "x-shm": b""})
    with pytest.raises(RuntimeError, match="does not come to its files"):
        powerloss._compare({"f": b"1"}, {"f": b"2"})
    powerloss._compare({"f": b"1"}, {"f": b"2"}, {"f"})
