"""The profile tier: latencies and rates on this machine, told with the machine. No figure is a mark to pass."""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

from ikvcore.testing._live import document
from ikvcore.testing._parallel import PATIENCE
from ikvcore.testing._store_base import MakeStore, StoreBase

__all__ = ["Profile"]

_DOCUMENTS = 2_000
_FIELDS = 20


class Profile(StoreBase):
    """What one client sees: documents of 20 fields, one partition."""

    seed: ClassVar[int] = 1
    reads: ClassVar[int] = 20_000
    writes: ClassVar[int] = 200

    def test_latencies_and_rates(self, make: MakeStore, record_property: Callable[[str, object], None]) -> None:
        """Reads of one field and of 100 keys, single writes until they are acknowledged and until they are shown."""
        store = make()
        reader, writer = store.reader, store.writer
        rows = [document({"id": str(n), **{f"f{i}": float(n * i) for i in range(_FIELDS)}}) for n in range(_DOCUMENTS)]
        began = time.perf_counter()
        for first in range(0, _DOCUMENTS, 100):
            token = writer.upsert_fields_batch(rows[first : first + 100])
        reader.wait_for(token, timeout=PATIENCE)
        batched = time.perf_counter() - began
        keys = [str(n) for n in range(_DOCUMENTS)]
        names = [f"f{i}" for i in range(_FIELDS)]
        record_property(
            "conformance",
            {
                "machine": machine(),
                "documents_in_batches_of_100_per_second": round(_DOCUMENTS / batched),
                "read_one_field_us": _spread(
                    [_timed(reader.get_value, keys[n % _DOCUMENTS], "f7") for n in range(self.reads)]
                ),
                "read_100_keys_of_20_fields_us": _spread(
                    [_timed(reader.get_rows, keys[n : n + 100], names) for n in range(self.reads // 20)]
                ),
                "write_until_acknowledged_us": _spread(
                    [_timed(writer.upsert_fields, rows[n]) for n in range(self.writes)]
                ),
                "write_until_shown_us": _spread(
                    [
                        _timed(lambda n=n: reader.wait_for(writer.upsert_fields(rows[n]), timeout=PATIENCE))
                        for n in range(self.writes)
                    ]
                ),
            },
        )
        assert reader.count() == _DOCUMENTS


def machine() -> str:
    """The processor's name and number, as far as the system tells."""
    try:
        found = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return f"{found.group(1) if found else platform.machine()}, {os.cpu_count()} processors"


def _timed(call: Callable[..., object], *arguments: object) -> float:
    """Microseconds."""
    began = time.perf_counter_ns()
    call(*arguments)
    return (time.perf_counter_ns() - began) / 1_000


def _spread(times: Sequence[float]) -> dict[str, float]:
    """The distribution, in the unit of the times."""
    ordered = sorted(times)
    at = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99_9": 0.999}
    spread = {name: round(ordered[min(len(ordered) - 1, int(len(ordered) * share))], 2) for name, share in at.items()}
    return {"times": len(ordered), **spread, "max": round(ordered[-1], 2)}
