"""A store to load into, and what lies there after a load."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from ikvcore.fields import FieldType, Value
from ikvcore.loadreport import LoadReport
from ikvcore.testing.fixtures import EphemeralStore


@pytest.fixture(autouse=True)
def _extra(requires_part: Callable[..., None]) -> None:
    available = all(map(find_spec, ("duckdb", "pyarrow")))
    requires_part("duckdb and pyarrow", available=available, how='pip install "ikvcore[load]"')


class Loads(EphemeralStore):
    """A store in memory that files and tables are loaded into."""

    def load(self, source: object, **wishes: Any) -> LoadReport:
        """Load, and wait until it can be read."""
        report = self.writer.load(source, **wishes)
        self.reader.wait_for(report.token, timeout=30)
        return report

    def typed(self, key: str | bytes = "1") -> dict[str, tuple[FieldType, Value]]:
        """The fields of a document with their types, without the key."""
        (row,) = self.reader.get_rows([key])
        assert row is not None, f"no document {key!r}"
        fields = {name: (kind, value) for name, kind, value in zip(*row, strict=True) if kind and value is not None}
        fields.pop(self.description.primary_key)
        return fields

    def all(self) -> dict[str | bytes, dict[str, Value]]:
        """Every document."""
        return dict(self.reader.scan())


@pytest.fixture
def new_store() -> Iterator[Callable[..., Loads]]:
    """`new_store(primary_key=...)`: a store that is closed at the end."""
    opened: list[Loads] = []

    def make(**fixed: Any) -> Loads:
        opened.append(Loads(**fixed))
        return opened[-1]

    yield make
    for store in opened:
        store.close()


@pytest.fixture
def store(new_store: Callable[..., Loads]) -> Loads:
    """A store whose primary key is the string field `id`."""
    return new_store()


@pytest.fixture
def csv(tmp_path: Path) -> Callable[[str], str]:
    """`csv(text)`: the path of a new CSV file."""
    numbers = iter(range(1_000))

    def write(text: str) -> str:
        path = tmp_path / f"{next(numbers)}.csv"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


@pytest.fixture
def parquet(tmp_path: Path) -> Callable[[str], str]:
    """`parquet(query)`: the path of a Parquet file with what a query gives."""
    numbers = iter(range(1_000))

    def write(query: str) -> str:
        import duckdb

        path = tmp_path / f"{next(numbers)}.parquet"
        with duckdb.connect() as connection:
            connection.execute("SET TimeZone = 'America/New_York'")
            connection.sql(query).write_parquet(str(path))
        return str(path)

    return write
