"""Reads of the default backend beside bare LMDB, in one run: `python benchmarks/reads.py [documents]`.

200,000 documents of 20 fields go through the local log into an LMDB replica. Then random keys are read, in turns,
through IKVReader and through a bare py-lmdb begin + get + decode of the very same records. Quote the ratio, not the
times.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import struct
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

from ikvcore import admin
from ikvcore._kvstorage import KeyValueStorage
from ikvcore.clientoptions import ClientOptionsBuilder
from ikvcore.document import IKVDocument, IKVDocumentBuilder
from ikvcore.factory import create_new_reader, create_new_writer

GETS = 100_000
BATCHES = 500
ROUNDS = 7
FIELDS = [*(f"i{n}" for n in range(7)), *(f"f{n}" for n in range(6)), *(f"s{n}" for n in range(6))]


def document(number: int) -> IKVDocument:
    """Key, 7 ints, 6 floats and 6 strings."""
    builder = IKVDocumentBuilder().put_string_field("id", key(number))
    for n in range(7):
        builder.put_int64_field(f"i{n}", number * n)
    for n in range(6):
        builder.put_float64_field(f"f{n}", number / (n + 1))
    for n in range(6):
        builder.put_string_field(f"s{n}", f"value {number} {n}")
    return builder.build()


def key(number: int) -> str:
    """The primary key of a document."""
    return f"user{number:07d}"


def bare(storage: KeyValueStorage, rank: int) -> Callable[[Sequence[str]], None]:
    """Reads the variable-width field of this rank, which is not the first, with nothing but py-lmdb and struct."""
    environment: Any = storage._engine
    begin = environment._environment.begin
    (shape,) = storage._tables.shapes.values()
    ends_at = shape._ends_at + 4 * (rank - 1)
    unpack = struct.Struct("<II").unpack_from

    def read(keys: Sequence[str]) -> None:
        for each in keys:
            with begin() as txn:
                record = txn.get(b"\x01\x00\x00" + each.encode())
            start, end = unpack(record, ends_at)
            record[start:end].decode()

    return read


def microseconds(read: Callable[[Sequence[str]], None], keys: Sequence[str]) -> float:
    """Time for each key."""
    began = time.perf_counter()
    read(keys)
    return (time.perf_counter() - began) / len(keys) * 1e6


def main() -> None:
    """Load, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("documents", nargs="?", type=int, default=200_000)
    count = parser.parse_args().documents
    with tempfile.TemporaryDirectory() as directory:
        os.environ["IKV_HOME"] = f"{directory}/home"
        admin.create_store("bench", account_id="bench", account_passkey="bench", primary_key="id")
        options = (
            ClientOptionsBuilder()
            .with_store_name("bench")
            .with_account_id("bench")
            .with_account_passkey("bench")
            .with_mount_directory(f"{directory}/mount")
            .with_console_logging("warn")
            .build()
        )
        with create_new_writer(options) as writer:
            began = time.perf_counter()
            for first in range(0, count, 1_000):
                writer.upsert_fields_batch(document(n) for n in range(first, min(first + 1_000, count)))
            written = count / (time.perf_counter() - began)
        reader: Any = create_new_reader(options)
        began = time.perf_counter()
        with reader:
            ingested = count / (time.perf_counter() - began)
            report(reader, count)
        print(f"written {written:,.0f} documents/s, ingested {ingested:,.0f} documents/s ({count:,} of 20 fields)")


def report(reader: Any, count: int) -> None:
    """Measure reads in turns, and print medians and the median of the rounds' ratios."""
    keys = [key(random.randrange(count)) for _ in range(GETS)]
    get = reader.get_string_value
    # Field ids, and with them the order of values in a record, differ from run to run: take the last of the strings.
    storage = reader._replica.storage
    (shape,) = storage._tables.shapes.values()
    ranks = {f"s{n}": shape.variable[storage._tables.field_ids[f"s{n}"]] for n in range(6)}
    field = max(ranks, key=ranks.__getitem__)

    def ours(keys: Sequence[str]) -> None:
        for each in keys:
            get(each, field)

    plain = bare(storage, ranks[field])
    pairs = [(microseconds(ours, keys), microseconds(plain, keys)) for _ in range(ROUNDS)]
    ratio = statistics.median(a / b for a, b in pairs)
    mine, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"get_string_value {mine:.2f} us, bare begin+get+decode {theirs:.2f} us, ratio {ratio:.2f}")
    batches = [random.sample(keys, 100) for _ in range(BATCHES)]
    began = time.perf_counter()
    for batch in batches:
        reader.multiget_values(batch, FIELDS)
    each = (time.perf_counter() - began) / BATCHES * 1e6
    print(f"multiget_values of 100 keys x {len(FIELDS)} fields {each:.0f} us, {each * 10 / len(FIELDS):.0f} ns a value")


if __name__ == "__main__":
    main()
