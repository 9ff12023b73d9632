"""A StoreReport as tables and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from rich.box import SIMPLE
from rich.console import Group
from rich.table import Table
from rich.text import Text

from ikvcore.cli._cells import visible
from ikvcore.cli._event_text import iso_time
from ikvcore.cli._values import json_line
from ikvcore.inspection import IngesterReport, LogReport, PartitionReport, ReplicaReport, StoreReport

__all__ = ["report_to_json", "view"]

_STYLES: Final = {"ready": "green", "catching-up": "yellow", "unknown": "yellow", "absent": "yellow"}


# -- for a person ------------------------------------------------------------------------------


def view(report: StoreReport) -> Group:
    """A line for each thing, then one for each partition."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    state = f"{report.state}: {report.reason}" if report.reason else report.state
    table.add_row(Text("state"), Text(visible(state), style=_STYLES.get(report.state, "red")))
    for label, text in _facts(report):
        table.add_row(Text(label), Text(visible(text)))
    return Group(table, _partitions(report))


def _facts(report: StoreReport) -> Iterator[tuple[str, str]]:
    store = report.log.store if report.log is not None else report.replica.store if report.replica is not None else None
    if store is not None:
        yield "store", f"{store.store_name} of account {store.account_id}"
    yield "log", _log(report.log) if report.log is not None else f"cannot be reached: {report.log_error}"
    replica = report.replica
    if replica is None:
        yield "replica", "none; name a service's with --mount-directory"
        return
    yield "replica", str(replica.directory)
    yield "", f"backend {replica.backend}, {replica.generation}, {replica.bytes:,} bytes, history {replica.history}"
    yield "ingester", _ingester(replica.ingester)
    if replica.partitions is not None:
        bad = sum(each.bad for each in replica.partitions.values())
        applied = sum(each.applied for each in replica.partitions.values())
        yield "documents", f"{replica.documents:,}"
        yield "events", f"{applied:,} applied, {bad:,} of them bad and passed over"
    if replica.unread is not None:
        yield "not read", replica.unread
    if replica.ingester is not None and replica.ingester.last_error is not None:
        yield "last error", replica.ingester.last_error


def _log(log: LogReport) -> str:
    return "size unknown" if log.bytes is None else f"{log.bytes:,} bytes"


def _ingester(ingester: IngesterReport | None) -> str:
    if ingester is None:
        return "none so far"
    age = "before this machine's start" if ingester.heartbeat_age is None else f"{ingester.heartbeat_age:.1f} s ago"
    return f"process {ingester.pid}, {'heard of' if ingester.alive else 'gone, last heard of'} {age}"


def _partitions(report: StoreReport) -> Table:
    table = Table(box=SIMPLE, pad_edge=False)
    table.add_column("partition")
    for heading in ("log", "position", "lag", "behind", "bad"):  # all fits into 80 columns
        table.add_column(heading, justify="right")
    table.add_column("last event")
    bounds = report.log.bounds if report.log is not None else {}
    held = report.replica.held if report.replica is not None else ()
    for partition in sorted({*bounds, *held}):
        place = bounds.get(partition)
        log = "-" if place is None else f"{place.first:,} to {place.end:,}"
        table.add_row(*map(Text, [str(partition), log, *_progress(report.replica, partition)]))
    return table


def _progress(replica: ReplicaReport | None, partition: int) -> list[str]:
    if replica is None or replica.partitions is None:
        return ["-"] * 5
    part = replica.partitions.get(partition)
    if part is None:
        return ["not held", *["-"] * 4]
    return [
        "-" if part.position is None else f"{part.position:,}",
        "-" if part.lag_events is None else f"{part.lag_events:,}",
        "-" if part.lag_seconds is None else f"{part.lag_seconds:,.1f} s",
        f"{part.bad:,}",
        "-" if part.timestamp is None else f"{(iso_time(part.timestamp) or '')[:19]}Z",
    ]


# -- for a program -----------------------------------------------------------------------------


def report_to_json(report: StoreReport) -> str:
    """One line of JSON."""
    return json_line(
        {
            "state": report.state,
            "reason": report.reason,
            "ready": report.ready,
            "log_error": report.log_error,
            "log": None if report.log is None else _log_to_json(report.log),
            "replica": None if report.replica is None else _replica_to_json(report.replica),
        }
    )


def _log_to_json(log: LogReport) -> dict[str, Any]:
    return {
        "store": log.store.to_json(),
        "bytes": log.bytes,
        "bounds": {str(partition): bounds._asdict() for partition, bounds in log.bounds.items()},
    }


def _replica_to_json(replica: ReplicaReport) -> dict[str, Any]:
    parts = replica.partitions
    return {
        "directory": str(replica.directory),
        "store": replica.store.to_json(),
        "backend": replica.backend,
        "held": list(replica.held),
        "history": replica.history,
        "format": replica.format,
        "generation": replica.generation,
        "bytes": replica.bytes,
        "ingester": None if replica.ingester is None else _ingester_to_json(replica.ingester),
        "documents": replica.documents,
        "lag_events": replica.lag_events,
        "partitions": None if parts is None else {str(each): _partition_to_json(part) for each, part in parts.items()},
        "unread": replica.unread,
        "damage": replica.damage,
        "mismatch": replica.mismatch,
    }


def _ingester_to_json(ingester: IngesterReport) -> dict[str, Any]:
    return {
        "pid": ingester.pid,
        "alive": ingester.alive,
        "heartbeat_age": ingester.heartbeat_age,
        "halts": {str(partition): reason for partition, reason in ingester.halts.items()},
        "failure": ingester.failure,
        "last_error": ingester.last_error,
    }


def _partition_to_json(part: PartitionReport) -> dict[str, Any]:
    return {
        "position": part.position,
        "applied": part.applied,
        "bad": part.bad,
        "time": iso_time(part.timestamp),
        "lag_events": part.lag_events,
        "lag_seconds": part.lag_seconds,
    }
