"""What users' own tests get: the fixture ikv_store, its marker, and a plugin that is cheap to import."""

import subprocess
import sys

import pytest

from ikvcore.clientoptions import ClientOptions
from ikvcore.document import IKVDocument
from ikvcore.factory import create_new_reader
from ikvcore.testing.fixtures import EphemeralStore


def test_put_is_visible(ikv_store: EphemeralStore) -> None:
    """What put wrote is read at once; fields come as keywords, as a dict, or both."""
    ikv_store.put(id="a", x=1)
    ikv_store.put({"id": "a", "a field": "2"}, y=True)
    assert ikv_store.reader.get_document("a") == {"id": "a", "x": 1, "a field": "2", "y": True}


@pytest.mark.parametrize("turn", [1, 2])
def test_every_test_has_its_own(ikv_store: EphemeralStore, turn: int) -> None:
    """A store is empty when a test begins, whatever others wrote."""
    assert ikv_store.reader.count() == 0
    ikv_store.put(id=str(turn))


def test_other_writes(ikv_store: EphemeralStore) -> None:
    """The writer is there for everything else, and shown waits for its tokens."""
    ikv_store.put(id="a", x=1)
    ikv_store.shown(ikv_store.writer.delete_document(IKVDocument.from_dict({"id": "a"})))
    assert ikv_store.reader.count() == 0


def test_options_open_more_clients(ikv_store: EphemeralStore) -> None:
    """The options are those of the store, for code that opens its own clients."""
    assert isinstance(ikv_store.options, ClientOptions)
    ikv_store.put(id="a", x=1)
    with create_new_reader(ikv_store.options) as reader:
        assert reader.get_value("a", "x") == 1


@pytest.mark.ikv_store(primary_key="user_id", primary_key_type="BYTES", partitions=3)
def test_marker(ikv_store: EphemeralStore) -> None:
    """The marker ikv_store says how the store is made."""
    ikv_store.put(user_id=b"\xff", x=1)
    assert ikv_store.reader.get_document(b"\xff") == {"user_id": b"\xff", "x": 1}
    assert len(ikv_store.reader.stats().partitions) == 3


def test_the_plugin_is_cheap() -> None:
    """Importing the plugin beside pytest imports no hypothesis, no protobuf, no driver and no client."""
    code = (
        "import sys, pytest; before = set(sys.modules); import ikvcore.testing.plugin; "
        "print(*sorted(set(sys.modules) - before))"
    )
    imported = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert set(imported) == {"ikvcore", "ikvcore.testing", "ikvcore.testing.plugin"}


def test_the_package_is_lazy() -> None:
    """Importing ikvcore.testing imports neither pytest nor hypothesis; its names are there all the same."""
    code = (
        "import sys, ikvcore.testing as kit; print('pytest' in sys.modules, 'hypothesis' in sys.modules); "
        "print(all(isinstance(getattr(kit, name), object) for name in kit.__all__), set(kit.__all__) <= set(dir(kit)))"
    )
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert said == ["False", "False", "True", "True"]
