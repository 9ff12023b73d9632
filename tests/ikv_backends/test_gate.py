"""Many use an engine side by side, and who changes it is alone."""

from __future__ import annotations

import threading

from ikv_backends._gate import Gate

PATIENCE = 60.0


def started(work: object) -> threading.Thread:
    thread = threading.Thread(target=work)  # type: ignore[arg-type]
    thread.start()
    return thread


def test_uses_run_side_by_side_and_a_change_after_them() -> None:
    gate, happened, inside = Gate(), [], threading.Event()

    def change() -> None:
        inside.set()
        with gate.alone():
            happened.append("changed")

    gate.enter()
    gate.enter()
    thread = started(change)
    assert inside.wait(PATIENCE)
    other = started(lambda: (gate.enter(), happened.append("used"), gate.leave()))
    happened.append("left")
    gate.leave()
    gate.leave()
    thread.join(PATIENCE)
    other.join(PATIENCE)
    assert happened[0] == "left"
    assert sorted(happened[1:]) == ["changed", "used"]


def test_nobody_comes_in_while_somebody_is_alone() -> None:
    gate, came_in = Gate(), threading.Event()
    with gate.alone():
        thread = started(lambda: (gate.enter(), came_in.set(), gate.leave()))
        assert not came_in.wait(0.05)
    assert came_in.wait(PATIENCE)
    thread.join(PATIENCE)


def test_whoever_does_not_get_alone_in_time_keeps_nobody_out() -> None:
    gate, entered, leave = Gate(), threading.Event(), threading.Event()
    thread = started(lambda: (gate.enter(), entered.set(), leave.wait(PATIENCE), gate.leave()))
    assert entered.wait(PATIENCE)
    with gate.alone(0.01) as alone:
        assert not alone
        gate.enter()  # as anybody may
        gate.leave()
    leave.set()
    with gate.alone(PATIENCE) as alone:
        assert alone
    thread.join(PATIENCE)


def test_a_thread_that_is_inside_does_not_wait_for_itself() -> None:
    gate = Gate()
    gate.enter()
    with gate.alone(PATIENCE) as alone:
        assert alone
    gate.leave()
