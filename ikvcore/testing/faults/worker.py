"""The programs that campaigns run, stop and kill: writer, reader, inspector and rebuilder.

    python -m ikvcore.testing.faults.worker ROLE TARGET.json NAME [--option value ...] [--fault FILE.py:FUNCTION]

A reader ingests where it is the one to do it. `--fault` names a function that breaks something in this process before
it begins, to test the checks with.
"""

from __future__ import annotations

import argparse
import ctypes
import faulthandler
import importlib.util
import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from ikvcore._mount import Mount
from ikvcore._progress import read_progress
from ikvcore._registry import load_backend
from ikvcore._storage import as_storage
from ikvcore.client import IKVReader
from ikvcore.errors import (
    IKVError,
    IngestHaltedError,
    LogDivergedError,
    LogTrimmedError,
    OutcomeUnknownError,
    PartialPublishError,
    TransportError,
)
from ikvcore.factory import create_new_reader, create_new_writer
from ikvcore.models import Projection
from ikvcore.protocols import Verify
from ikvcore.testing._plugins import open_backend
from ikvcore.testing.faults.instruments import Stall, mark_reads, watch_publications, watch_storages
from ikvcore.testing.faults.marks import Marks, Stage
from ikvcore.testing.faults.recorder import Inspection, Recorder, digest, row_fields
from ikvcore.testing.faults.target import Target
from ikvcore.testing.faults.workload import Clock, Workload, perform
from ikvcore.tokens import Token

__all__ = ["Job", "inject", "inspect", "load_file", "marks_path", "run", "run_writer"]

STALL_SECONDS: Final = 8.0
_EVERYTHING: Final = Projection(None)


@dataclass(frozen=True, kw_only=True)
class Job:
    """What one worker process does."""

    role: str
    """writer, reader, inspector or rebuilder."""
    name: str
    """Of this life of it: no other process of the target has it."""
    client: str | None = None
    """Lives of one client are checked as one; by default the life is all."""
    writer: int = 0
    """Writer's number, stamped on its events; no other life has it."""
    calls: int | None = None
    """Writers end after so many; None goes on until it is killed."""
    pace: float = 0.0
    """Seconds between calls or reads."""
    reads: int = 0
    """Keys that a reader reads at once, again and again; 0 reads nothing."""
    tokens: bool = False
    """Whether the reader waits, now and then, for the log's end before it reads."""
    aim_at_reads: bool = False
    """Whether the marks tell of reads rather than of commits."""
    outages: bool = False
    """Whether the log may be out of reach for a while: a reader shows what it has then, and asks the log later."""
    on_bad_event: str = "raise"
    mount: str = "mount"
    fault: str | None = None
    """FILE.py:FUNCTION, called first."""

    def to_json(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return asdict(self)


def marks_path(target: Target, name: str) -> Path:
    """Where the marks of a worker are."""
    return target.directory / "marks" / name


def run(job: Job, target: Target, workload: Workload) -> None:
    """Be that worker, in this process, until the job is done."""
    if job.fault is not None:
        inject(job.fault)
    recorder, marks = Recorder(target.directory, job.name, job.client), Marks(marks_path(target, job.name))
    try:
        if job.role == "writer":
            run_writer(job, target, workload, recorder, marks)
        elif job.role == "reader":
            _run_reader(job, target, workload, recorder, marks)
        else:
            if job.role == "rebuilder":
                with create_new_reader(target.options(job.mount, on_bad_event=job.on_bad_event)) as reader:
                    reader.count()
            recorder.looked(inspect(target, job.mount))
    except IKVError as exc:
        recorder.note("wrong", error=f"{type(exc).__name__}: {exc}")
        if job.role in ("writer", "reader"):
            raise


def inject(fault: str) -> None:
    """Call FILE.py:FUNCTION."""
    file, _, name = fault.rpartition(":")
    getattr(load_file(Path(file)), name)()


def load_file(file: Path) -> ModuleType:
    """The module in a file that no package has."""
    spec = importlib.util.spec_from_file_location(f"ikv_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# -- writing -----------------------------------------------------------------------------------


def run_writer(job: Job, target: Target, workload: Workload, recorder: Recorder, marks: Marks) -> None:
    """Make calls, and write down each one before it is made and after it returned."""
    clock = Clock.take_over()
    with create_new_writer(target.options()) as writer:
        watch_publications(writer._transport, marks)  # type: ignore[attr-defined]
        number = 0
        while job.calls is None or number < job.calls:
            call = workload.call(job.writer, number)
            clock.now = call.at
            recorder.call(job.writer, number)
            marks.at(Stage.BEFORE)
            try:
                token = perform(writer, call, target.description)
            except (PartialPublishError, OutcomeUnknownError) as exc:
                recorder.failed(job.writer, number, exc, refused=False)
            except IKVError as exc:
                recorder.failed(job.writer, number, exc, refused=True)
            else:
                recorder.acknowledged(job.writer, number, token)
                marks.add("acked")
            number += 1
            if job.pace:
                time.sleep(job.pace)


# -- reading and ingesting ---------------------------------------------------------------------


def _run_reader(job: Job, target: Target, workload: Workload, recorder: Recorder, marks: Marks) -> None:
    stall = Stall()
    _obey_signals(stall, marks)
    if not job.aim_at_reads:
        watch_storages(marks, recorder, stall)
    reader = create_new_reader(target.options(job.mount, on_bad_event=job.on_bad_event))
    _start_up(job, reader)
    if job.aim_at_reads:
        mark_reads(marks, reader._replica.storage)  # type: ignore[attr-defined]
    recorder.note("started")
    if not job.reads:
        threading.Event().wait()
    _read_on(job, reader, workload, recorder, marks)


def _start_up(job: Job, reader: IKVReader) -> None:
    while True:
        with _excused(job):
            return reader.startup(timeout=60.0)


def _read_on(job: Job, reader: IKVReader, workload: Workload, recorder: Recorder, marks: Marks) -> None:
    """Read keys, all of one partition's in one state, and write down what was seen."""
    dice = random.Random(job.name)
    keys = workload.all_keys()
    began = 0 if job.outages else reader.stats().events_applied
    turn = 0
    while True:
        wanted = keys if job.reads >= len(keys) else dice.sample(keys, job.reads)
        if job.aim_at_reads:
            marks.at(Stage.BEFORE)
        if job.tokens and turn % 8 == 0:
            with _excused(job):
                recorder.waited(_wait_for_end(reader))
        rows = reader.get_rows(wanted)
        recorder.read((key, digest(row_fields(row))) for key, row in zip(wanted, rows, strict=True))
        marks.add("reads")
        turn += 1
        if turn % 4 == 0 and not job.outages:
            marks.put("seen", reader.stats().events_applied - began)
        if job.pace:
            time.sleep(job.pace)


def _wait_for_end(reader: IKVReader) -> Token:
    """Return when everything is visible that was in the log at the call."""
    ends = {partition: each.end for partition, each in reader.stats().partitions.items() if each.end}
    token = Token(_identity(reader), ends)
    reader.wait_for(token, timeout=60.0)
    return token


@contextmanager
def _excused(job: Job) -> Iterator[None]:
    """Where the log may be out of reach, that it is, is no end; but that it is another log, or was cut, is one."""
    try:
        yield
    except (LogDivergedError, LogTrimmedError):
        raise
    except (TransportError, IngestHaltedError):
        if not job.outages:
            raise


def _identity(reader: IKVReader) -> str:
    identity: str = reader._replica.store.identity  # type: ignore[attr-defined]
    return identity


def _obey_signals(stall: Stall, marks: Marks) -> None:
    """SIGUSR1: one C call that holds the GIL for long. SIGUSR2: the next commit is planned, and made much later."""

    def hold_gil(*_: object) -> None:
        marks.add("stalls")
        ctypes.PyDLL(None).usleep(int(STALL_SECONDS * 1e6))

    def hold_commit(*_: object) -> None:
        stall.seconds = STALL_SECONDS

    signal.signal(signal.SIGUSR1, hold_gil)
    signal.signal(signal.SIGUSR2, hold_commit)


# -- looking at files --------------------------------------------------------------------------


def inspect(target: Target, mount: str = "mount") -> Inspection:
    """What the current generation of a mount holds, in one state, read without ingesting anything.

    Where other processes commit meanwhile it is looked at again until nothing changed.
    """
    pair, store = target.pair, target.description
    directory = Mount.generation(_Place(target.mount(mount)))  # type: ignore[arg-type]
    info = load_backend(pair.backend).info
    storage = as_storage(open_backend(pair.backend, directory, pair.backend_options), info)
    try:
        while True:
            progress = read_progress(storage, range(store.partitions))
            page = storage.scan(_EVERYTHING, after=None, limit=1 << 30)
            count = storage.count()
            findings = tuple(storage.verify()) if isinstance(storage, Verify) else ()
            if read_progress(storage, range(store.partitions)) == progress:
                break
    finally:
        storage.close()
    documents: dict[int, dict[str, str]] = {}
    for key, row in page.rows:
        shown = digest(row_fields(row))
        assert shown is not None
        documents.setdefault(int.from_bytes(key[:2], "big"), {})[key[2:].decode()] = shown
    return Inspection(
        mount=mount,
        positions={p: done.position for p, done in progress.partitions.items()},
        applied={p: done.applied for p, done in progress.partitions.items()},
        documents=documents,
        counted=count,
        findings=findings,
        commit=progress.commit,
    )


@dataclass
class _Place:
    path: Path


# -- as a program ------------------------------------------------------------------------------


def start(config: Mapping[str, Any]) -> None:
    """Be the worker that a configuration describes: what the zygote's children do."""
    run(Job(**config["job"]), Target.from_json(config["target"]), Workload(**config["workload"]))


def main(arguments: Sequence[str] | None = None) -> int:
    """The program's exit status."""
    faulthandler.enable()
    parser = argparse.ArgumentParser(prog="python -m ikvcore.testing.faults.worker", description=__doc__)
    parser.add_argument("role", choices=["writer", "reader", "inspector", "rebuilder"])
    parser.add_argument("target", type=Path, help="the target.json that Target.save wrote")
    parser.add_argument("name")
    parser.add_argument("--job", type=json.loads, default={}, help="further fields of Job, as JSON")
    parser.add_argument("--workload", type=json.loads, default={"seed": 1}, help="fields of Workload, as JSON")
    parser.add_argument("--fault", help="FILE.py:FUNCTION that breaks something first")
    given = parser.parse_args(arguments)
    target = Target.from_json(json.loads(given.target.read_text()))
    job = Job(role=given.role, name=given.name, **{"fault": given.fault, **given.job})
    run(job, target, Workload(**given.workload))
    sys.stdout.flush()
    return 0


if __name__ == "__main__":
    status = main()
    if os.environ.get("IKV_FAULTS_EXIT") == "at once":
        os._exit(status)
    sys.exit(status)
