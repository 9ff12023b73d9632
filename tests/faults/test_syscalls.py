"""System calls that fail or are the last, in the short form."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ikvcore.errors import OutcomeUnknownError, TransportError
from ikvcore.testing.faults import syscalls, syscalls_victim
from ikvcore.testing.faults.campaigns import CAMPAIGNS
from ikvcore.testing.faults.target import Pair


def test_system_calls_fail(tmp_path: Path, requires_part: Callable[..., None]) -> None:
    requires_part("strace", available=syscalls.can_trace(), how=syscalls.STRACE_HOW)
    campaign = CAMPAIGNS["system-calls"]
    result = campaign.load()(directory=tmp_path / "run", seed=1, pair=Pair(), **campaign.short)
    result.require()
    assert [row.times for row in result.rows] == [2, 2, 2]


def test_the_steps_of_a_program_tell_how_they_went(tmp_path: Path) -> None:
    steps = syscalls_victim.Steps(tmp_path / "steps")

    def fail(error: Exception) -> None:
        raise error

    steps.do(0, lambda: None)
    steps.do(1, lambda: fail(TransportError("x")))
    steps.do(2, lambda: fail(OutcomeUnknownError("x")))
    with pytest.raises(ZeroDivisionError):
        steps.do(3, lambda: fail(ZeroDivisionError()))
    again = syscalls_victim.Steps(tmp_path / "steps")
    assert [again[number] for number in range(5)] == [
        syscalls_victim.ACKNOWLEDGED,
        syscalls_victim.REFUSED,
        syscalls_victim.FAILED,
        syscalls_victim.UNTYPED,
        syscalls_victim.NEVER,
    ]


@pytest.mark.parametrize(
    ("code", "said", "wrong"),
    [
        (0, "", 0),
        (-9, "", 0),
        (1, "Traceback (most recent call last):\nikvcore.errors.StorageFullError: the disk is full\n", 0),
        (1, "Traceback (most recent call last):\nOSError: [Errno 5] Input/output error\n", 1),
        (1, "", 1),
        (-11, "", 1),
        (None, "", 1),
    ],
)
def test_a_process_ends_well_killed_or_with_a_typed_error(code: int | None, said: str, wrong: int) -> None:
    assert len(list(syscalls._wrong_end(code, said))) == wrong
