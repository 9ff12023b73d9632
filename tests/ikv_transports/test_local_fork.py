"""The local log and fork: the child touches nothing of its parent's, and says so."""

from __future__ import annotations

from typing import Any

from ikvcore.models import Message

FORK = """
    def in_child(work):
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            try:
                work()
                sys.exit(0)  # a whole interpreter exit, destructors and all
            except SystemExit:
                raise
            except BaseException:
                sys.excepthook(*sys.exc_info())
                os._exit(1)
        assert os.waitpid(pid, 0)[1] == 0

    def forked(call):
        try:
            call()
        except ForkedError as exc:
            return "after the fork" in str(exc)
        return False
"""


def test_every_call_in_the_child_raises_and_closing_does_nothing(local_store: Any) -> None:
    local_store.run(
        FORK
        + """
    log = open_log()
    subscription = log.subscribe({0: Start(0, None)})
    (bell,) = (log._log.followers).iterdir()

    def child():
        calls = [log.describe, log.bounds, log.size, lambda: log.publish([message(b"child")]), subscription.wake]
        calls += [lambda: log.subscribe({0: Start(0, None)}), lambda: poll(subscription)]
        assert all(map(forked, calls))
        subscription.close()
        log.close()

    in_child(child)
    assert bell.exists()
    log.publish([message(b"parent")])
    assert [each.value for each in poll(subscription).messages] == [b"parent"]
    """
    )


def test_no_lock_held_at_the_fork_is_waited_for_in_the_child(local_store: Any) -> None:
    local_store.run(
        FORK
        + """
    from ikv_transports import _local_table
    log = open_log()
    subscription = log.subscribe({0: Start(0, None)})

    def child():
        assert forked(lambda: log.publish([message(b"child")]))
        assert forked(log.bounds)
        assert forked(subscription.wake)
        assert forked(lambda: poll(subscription))
        assert forked(open_log)
        log.close()

    shared = log._log
    with shared._commits._turn, shared._engine._gate._changed, _local_table._table._lock:
        with subscription._polling, subscription._bell._lock, log._lock:
            in_child(child)
    """
    )


def test_the_same_log_cannot_be_opened_again_in_the_child_but_another_can(local_store: Any) -> None:
    local_store.create(store_name="other", identity="log-2")
    local_store.run(
        FORK
        + """
    log = open_log()

    def child():
        assert forked(open_log)
        other = open_log("other")
        other.publish([message(b"child")])
        other.close()

    in_child(child)
    assert open_log("other").bounds()[0].end == 1
    """
    )


def test_a_log_closed_before_the_fork_can_be_opened_in_the_child(local_store: Any) -> None:
    local_store.run(
        FORK
        + """
    open_log().close()

    def child():
        log = open_log()
        log.publish([message(b"child")])
        log.close()

    in_child(child)
    assert open_log().bounds()[0].end == 1
    """
    )


def test_the_childs_exit_leaves_a_snapshot_of_the_parent_intact(local_store: Any) -> None:
    """An environment closed in the child clears the parent's reader slots; its pages would then be written over."""
    local_store.run(
        FORK
        + """
    import gc
    log = open_log(durability="process-crash")
    log.publish([message(b"%d" % number) for number in range(2000)])
    with log._log._engine.read() as snapshot:
        before = list(snapshot.cursor())

        def child():
            log.close()
            gc.collect()

        in_child(child)
        for round in range(60):
            log.publish([message(b"x" * 200) for _ in range(200)])
        assert list(snapshot.cursor()) == before
    """
    )


def test_a_dead_parents_fifo_is_stale_while_its_child_lives(local_store: Any) -> None:
    parent = local_store.start("""
        log = open_log()
        subscription = log.subscribe({0: Start(0, None)})
        pid = os.fork()
        if pid == 0:
            print("forked", flush=True)
            sys.stdin.read()
        os._exit(0)
    """)
    assert parent.stdout is not None
    assert parent.stdout.readline() == "forked\n"
    parent.wait()
    followers = local_store.directory / "followers"
    assert len(list(followers.iterdir())) == 1
    log = local_store.open()
    log.publish([Message(0, b"key", b"1", 1)])
    assert list(followers.iterdir()) == []
    parent.communicate()
