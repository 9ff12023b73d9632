"""Power losses, in the short form; and how what is left of a file is made up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ikvcore.testing.faults import syscalls
from ikvcore.testing.faults.campaigns import CAMPAIGNS
from ikvcore.testing.faults.powerloss_writes import (
    Acknowledged,
    Synced,
    Trace,
    Written,
    left_behind,
    read_trace,
)
from ikvcore.testing.faults.target import Pair


def test_power_losses(tmp_path: Path, requires_part: Callable[..., None]) -> None:
    requires_part("strace", available=syscalls.can_trace(), how=syscalls.STRACE_HOW)
    campaign = CAMPAIGNS["power-losses"]
    result = campaign.load()(directory=tmp_path / "run", seed=1, pair=Pair(), **campaign.short)
    result.require()
    assert len(result.rows) == 4


def test_what_was_synced_stays_and_what_was_not_may_go() -> None:
    trace = Trace(
        b"....",
        [Written(0, b"a", False), Synced(), Written(1, b"b", False), Acknowledged(1), Written(2, b"c", True), Synced()],
    )
    assert list(left_behind(trace, 0, 1, 3)) == [b"...."]
    assert list(left_behind(trace, 2, 1, 3)) == [b"a..."]
    assert set(left_behind(trace, 3, 1, 20)) == {b"a...", b"ab.."}
    # The third is under way, and the second still nowhere for sure.
    assert set(left_behind(trace, 5, 1, 40)) == {b"a...", b"ab..", b"a.c.", b"abc."}
    assert list(left_behind(trace, 6, 1, 3)) == [b"abc."]


def test_a_long_write_is_torn_at_sectors() -> None:
    trace = Trace(b"", [Written(0, b"x" * 512 + b"y" * 512, False)])
    left = set(left_behind(trace, 1, 1, 60))
    assert {b"", b"x" * 512, b"x" * 512 + b"y" * 512, bytes(512) + b"y" * 512} <= left


def test_a_trace_is_read(tmp_path: Path) -> None:
    file, said = tmp_path / "data.mdb", tmp_path / "said"

    def escaped(text: object) -> str:
        return "".join(f"\\x{byte:02x}" for byte in str(text).encode())

    lines = [
        f'7 openat(AT_FDCWD</>, "x", O_RDWR|O_CREAT, 0600) = 5<{file}>',
        f'7 openat(AT_FDCWD</>, "x", O_WRONLY|O_DSYNC) = 6<{escaped(file)}>',
        f'8 pwrite64(5<{escaped(file)}>, "\\x41\\x42", 2, 4096 <unfinished ...>',
        f'7 write(9<{said}>, "\\x31\\x0a", 2) = 2',
        "8 <... pwrite64 resumed>) = 2",
        f"7 lseek(5<{file}>, 100, SEEK_SET) = 100",
        f'7 writev(5<{file}>, [{{iov_base="\\x01", iov_len=1}}, {{iov_base="\\x02", iov_len=1}}], 2) = 2',
        f"7 fdatasync(5<{file}>) = 0",
        f'7 pwrite64(6<{file}>, "\\x43", 1, 0) = 1',
        f'7 pwrite64(5<{file}>, "\\x44", 1, 0) = -1 EIO (Input/output error)',
        f'7 pwrite64(5<{tmp_path / "other"}>, "\\x44", 1, 0) = 1',
    ]
    (tmp_path / "trace").write_text("\n".join(lines))
    assert read_trace(tmp_path / "trace", file, said, b"").steps == [
        Acknowledged(1),
        Written(4096, b"AB", False),
        Written(100, b"\x01\x02", False),
        Synced(),
        Written(0, b"C", True),
    ]
