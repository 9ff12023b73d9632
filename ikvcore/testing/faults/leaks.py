"""Opening and closing again and again, and writing and reading for long: descriptors, threads and memory stay flat."""

from __future__ import annotations

import ctypes
import gc
import itertools
import json
import re
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Final, NamedTuple

from ikvcore.factory import create_new_reader, create_new_writer
from ikvcore.testing.faults.program import given, play
from ikvcore.testing.faults.result import Result, Row
from ikvcore.testing.faults.target import Pair, Target
from ikvcore.testing.faults.worker import inject
from ikvcore.testing.faults.workload import Clock, Workload, perform, stamp

__all__ = ["Sample", "grown", "run"]

_SAMPLES: Final = 30
_CALLS: Final = 40
"""Different calls that are made again and again: the first ones make the store's schema, which a reader holds while it
is open; what then grows, grows for nothing."""
_WARMING: Final = 3 * _CALLS
"""Rounds of writing and reading before the first sample: a slow machine does few in a second, so it is not by time that
they can be told from the rest."""


class _Limit(NamedTuple):
    """How much something may grow between the second third of the samples and the last one."""

    words: str
    room: float
    """In any case: caches fill, and allocators breathe."""
    a_round: float
    """And so much for each round."""


_LIMITS: Final = {
    "descriptors": _Limit("descriptors", 0, 0),
    # One that a round starts and that sees its end a little later is there or not, by chance.
    "threads": _Limit("threads", 2, 0),
    "heap": _Limit("bytes in use by malloc", 14 << 10, 128),
    "blocks": _Limit("blocks in use by Python", 1_000, 0.1),
    # The system's view is coarse, but it shows what is not on a heap: stacks, mappings, arenas in pieces.
    "memory": _Limit("bytes of anonymous memory", 3 << 20, 512),
}


_MOVING: Final = {
    "rocksdb": "its open files and its memory move with its tables, by more than a leak shows",
    "duckdb": "memory grows with each commit, until the file is opened anew after 10,000",
}
"""Backends that cannot be measured while they work, with the reason. Opened and closed they are measured."""


class Sample(NamedTuple):
    """What a process holds."""

    descriptors: int
    threads: int
    heap: int
    """Bytes that malloc has given out, 0 where that cannot be known: to the byte, whatever it keeps for itself."""
    blocks: int
    """Python's own blocks, of up to 512 bytes each, which do not come from malloc."""
    memory: int
    """Bytes of anonymous memory: pages of mapped files are the system's to keep."""

    @classmethod
    def take(cls) -> Sample:
        """Of this process, now."""
        gc.collect()
        status = Path("/proc/self/status").read_text()
        anonymous = re.search(r"RssAnon:\s+(\d+) kB", status)
        assert anonymous is not None
        return cls(
            sum(1 for _ in Path("/proc/self/fd").iterdir()),
            threading.active_count(),
            _heap(),
            sys.getallocatedblocks(),
            int(anonymous[1]) << 10,
        )


class _MallocInfo(ctypes.Structure):
    """glibc's struct mallinfo2."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "x", "y")
    ]


def _heap() -> int:
    try:
        ask = ctypes.CDLL(None).mallinfo2
    except AttributeError:  # another C library, or glibc before 2.33
        return 0
    ask.restype = _MallocInfo
    info = ask()
    return int(info.uordblks + info.hblkhd)


def grown(samples: Sequence[Sample], rounds: int) -> list[str]:
    """What is not flat, a sentence each: the last third is compared with the second."""
    third = len(samples) // 3
    early, late = samples[third : 2 * third], samples[2 * third :]
    wrong = []
    for name, limit in _LIMITS.items():
        # Their least: what is in use for a moment, a file that is being replaced, comes on top.
        first, last = (min(getattr(sample, name) for sample in part) for part in (early, late))
        if last - first > limit.room + limit.a_round * rounds / 3:
            wrong.append(f"{limit.words} grew from {first:,} to {last:,}")
    return wrong


def run(*, rounds: int, seconds: float, seed: int, directory: Path, pair: Pair, fault: str | None = None) -> Result:
    """So many rounds of opening and closing, then so many seconds of writes and reads, each in a process of its own.

    No seconds leave the second out. `fault`: FILE.py:FUNCTION that breaks something in them.
    """
    rows, violations, not_run = [], [], []
    fast = pair.with_durability("process-crash")
    for words, arguments, times in (
        ("open and close a writer and a reader", ("rounds", str(rounds)), rounds),
        (f"write and read for {seconds:.0f} s", ("seconds", str(seconds)), 1),
    ):
        if not float(arguments[1]):
            continue
        if arguments[0] == "seconds" and pair.backend in _MOVING:
            not_run.append(f"{words}: {_MOVING[pair.backend]}")
            continue
        target = Target.make(directory / arguments[0], fast)
        broken = () if fault is None else (fault,)
        ended = play(__name__, target, Workload(seed=seed), *arguments, *broken, patience=120 + rounds + 3 * seconds)
        samples = [Sample(*sample) for sample in ended.answer.get("samples", [])]
        done = ended.answer.get("done", 0)
        wrong = ended.wrong or grown(samples, done)
        if not ended.wrong:
            first, last = samples[len(samples) // 3], samples[-1]
            happened = (
                f"{done:,} rounds: descriptors {first.descriptors} to {last.descriptors}, threads {first.threads} to "
                f"{last.threads}, in use by malloc {first.heap / 1e6:.2f} to {last.heap / 1e6:.2f} MB, blocks of "
                f"Python's {first.blocks:,} to {last.blocks:,}, anonymous memory {first.memory / 1e6:.1f} to "
                f"{last.memory / 1e6:.1f} MB"
            )
        else:
            happened = "it did not end well"
        rows.append(Row(fault=words, times=times, happened=happened, violations=len(wrong), seed=seed))
        violations += [f"{words}: {each}" for each in wrong]
    return Result(rows=rows, violations=violations, not_run=not_run)


# -- the process itself ------------------------------------------------------------------------


def _open_and_close(target: Target, workload: Workload, rounds: int) -> Iterator[None]:
    clock = Clock.take_over()
    for number in range(rounds):
        call = workload.call(1, number % _CALLS)
        with create_new_writer(target.options()) as writer, create_new_reader(target.options()) as reader:
            clock.now = stamp(1, number)
            reader.wait_for(perform(writer, call, target.description), timeout=60.0)
            reader.get_document(workload.key(number % workload.keys))
        yield


def _write_and_read(target: Target, workload: Workload) -> Generator[None]:
    """Without an end."""
    clock = Clock.take_over()
    with ExitStack() as stack:
        writer = stack.enter_context(create_new_writer(target.options()))
        reader = stack.enter_context(create_new_reader(target.options()))
        keys = workload.all_keys()
        for number in itertools.count():
            clock.now = stamp(1, number)
            token = perform(writer, workload.call(1, number % _CALLS), target.description)
            reader.get_document(keys[number % len(keys)])
            if number % 20 == 0:
                reader.wait_for(token, timeout=60.0)
                list(reader.scan())
                list(reader.multiget_values(keys, ["w", "n", "f1"]))
            yield


def _watch(rounds: Iterator[None], due: Callable[[int], bool], samples: list[Sample]) -> int:
    """Go through the rounds and take a sample whenever one is due; how many rounds there were."""
    done = 0
    for _ in rounds:
        done += 1
        if due(done):
            samples.append(Sample.take())
    return done


def _watch_for(seconds: float, rounds: Iterator[None], samples: list[Sample]) -> int:
    """The same for so long, and until there are all the samples; rounds that warm it up come first and do not count."""
    for _ in itertools.islice(rounds, _WARMING):
        pass
    began = time.monotonic()
    counted = itertools.takewhile(lambda _: time.monotonic() - began < seconds or len(samples) < _SAMPLES, rounds)
    return _watch(counted, lambda _: time.monotonic() - began >= seconds / _SAMPLES * len(samples), samples)


def main(arguments: Sequence[str]) -> int:
    """The program's exit status."""
    target, workload, (what, amount, *faults) = given(arguments)
    for fault in faults:
        inject(fault)
    samples: list[Sample] = []
    if what == "rounds":
        every = max(1, int(amount) // _SAMPLES)
        rounds = _open_and_close(target, workload, int(amount))
        done = _watch(rounds, lambda number: number % every == 0, samples)
    else:
        with closing(_write_and_read(target, workload)) as rounds:  # what its end raises is not to be lost
            done = _watch_for(float(amount), rounds, samples)
    sys.stdout.write(json.dumps({"done": done, "samples": samples}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
