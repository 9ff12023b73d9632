"""What bad input gets, through the public API: a typed error that names the value and the way out, and nothing done."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from ikvcore._sealed_json import dump_sealed, load_sealed
from ikvcore.client import IKVReader, IKVWriter
from ikvcore.clientoptions import ClientOptionsBuilder
from ikvcore.document import IKVDocument, IKVDocumentBuilder
from ikvcore.errors import (
    EventTooLargeError,
    FieldNameError,
    FieldTypeError,
    FieldValueError,
    FormatVersionError,
    IKVError,
    InvalidArgumentError,
    InvalidDocumentError,
    InvalidKeyError,
    InvalidOptionError,
    InvalidTokenError,
    KeyTypeError,
    MissingOptionError,
    MountError,
    MountMismatchError,
    OptionsError,
    PluginNotFoundError,
    RequirementError,
    StoreAccessError,
    UnknownOptionError,
    UnsupportedTypeError,
)
from ikvcore.factory import create_new_reader, create_new_writer
from ikvcore.fields import FieldType
from ikvcore.models import Secret, StoreDescription, TransportContext
from ikvcore.tokens import Token

PATIENCE = 60.0


class Store:
    """A store with a started writer and reader, and a look at its log."""

    def __init__(self, directory: Path, kind: str, **fixed: Any) -> None:
        self.directory, self.kind = directory, kind
        self.account = f"a-{uuid.uuid4().hex[:8]}"
        description = StoreDescription(
            store_name="s", account_id=self.account, identity=uuid.uuid4().hex, **{"primary_key": "id", **fixed}
        )
        self._provisioning().create_store(description)
        self.clients: list[IKVReader | IKVWriter] = []
        self.writer = create_new_writer(self.options().build())
        self.reader = create_new_reader(self.options().build())
        for client in (self.writer, self.reader):
            self.clients.append(client)
            client.startup()

    def _provisioning(self) -> Any:
        from ikv_transports import local, memory

        module: Any = memory if self.kind == "memory" else local
        options: Any = (
            memory.MemoryTransportOptions()
            if self.kind == "memory"
            else local.LocalTransportOptions(durability="process-crash", home=str(self.directory / "home"))
        )
        context = TransportContext(store_name=None, account_id=self.account, passkey=Secret("secret"), options=options)
        return module.ikv_provisioning(context=context)

    def options(self, mount: str = "mount") -> ClientOptionsBuilder:
        builder = (
            ClientOptionsBuilder()
            .with_account_id(self.account)
            .with_account_passkey("secret")
            .with_store_name("s")
            .with_console_logging("ERROR")
        )
        if self.kind == "memory":
            return builder.with_backend("memory").with_transport("memory")
        return (
            builder.with_mount_directory(self.directory / mount)
            .with_backend("lmdb", durability="process-crash")
            .with_transport("local", durability="process-crash", home=str(self.directory / "home"))
        )

    def ends(self) -> dict[int, int]:
        """Where the log ends, by partition."""
        return {partition: part.end for partition, part in self.reader.stats().partitions.items()}

    def close(self) -> None:
        for client in self.clients:
            client.shutdown()


@pytest.fixture(scope="module", params=["memory", "lmdb+local"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """One for all tests that only ask for what is refused: each of them shows that nothing has changed."""
    store = Store(tmp_path_factory.mktemp("shared"), request.param)
    store.reader.wait_for(store.writer.upsert_fields(document(id="a", s="x", n=1)), PATIENCE)
    yield store
    store.close()


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path, "lmdb+local")
    yield store
    store.close()


@pytest.fixture
def spread(tmp_path: Path) -> Iterator[Store]:
    """A store with a partitioning key and several partitions."""
    store = Store(tmp_path, "memory", partitioning_key="city", partitions=4)
    yield store
    store.close()


def document(**fields: Any) -> IKVDocument:
    return IKVDocument.from_dict(fields)


def refused(store: Store, call: Callable[[], object], error: type[IKVError], *told: str) -> None:
    """`call` raises exactly this kind of error, which tells these things; the log and the documents are unchanged."""
    ends, documents = store.ends(), dict(store.reader.scan())
    with pytest.raises(IKVError) as caught:
        call()
    assert type(caught.value) is error, repr(caught.value)
    for each in told:
        assert each in str(caught.value)
    assert store.ends() == ends
    assert dict(store.reader.scan()) == documents


# -- documents without a key -------------------------------------------------------------------


def test_a_document_without_its_primary_key(store: Store) -> None:
    """Every call that takes documents names the missing field and what the document has."""
    nameless = document(s="x")
    for call in (
        lambda: store.writer.upsert_fields(nameless),
        lambda: store.writer.upsert_fields_batch([document(id="b"), nameless]),
        lambda: store.writer.delete_fields(nameless, ["s"]),
        lambda: store.writer.delete_fields_batch([document(id="a"), nameless], ["s"]),
        lambda: store.writer.delete_document(nameless),
        lambda: store.writer.delete_document_batch([document(id="a"), nameless]),
    ):
        refused(store, call, InvalidDocumentError, "'id'", "primary key", "'s'")


def test_a_document_without_its_partitioning_key(spread: Store) -> None:
    for call in (
        lambda: spread.writer.upsert_fields(document(id="a", s="x")),
        lambda: spread.writer.upsert_fields_batch([document(id="b", city="x"), document(id="a")]),
        lambda: spread.writer.delete_document(document(id="a")),
        lambda: spread.writer.delete_fields(document(id="a"), ["s"]),
    ):
        refused(spread, call, InvalidDocumentError, "'city'", "partitioning key")
    refused(spread, lambda: spread.writer.upsert_fields(document(city="x")), InvalidDocumentError, "'id'")


@pytest.mark.parametrize("thing", [None, {"id": "a"}, "a", 5])
def test_what_is_no_document(store: Store, thing: Any) -> None:
    refused(store, lambda: store.writer.upsert_fields(thing), InvalidArgumentError, type(thing).__name__, "Builder")
    refused(store, lambda: store.writer.delete_document(thing), InvalidArgumentError, type(thing).__name__)


# -- keys --------------------------------------------------------------------------------------

KEYS: dict[str, tuple[Any, type[IKVError], str]] = {
    "empty": ("", InvalidKeyError, "1 to 65,535 bytes"),
    "empty bytes": (b"", InvalidKeyError, "1 to 65,535 bytes"),
    "over-long": ("k" * 65_536, InvalidKeyError, "65,536"),
    "over-long bytes": (b"k" * 65_536, InvalidKeyError, "65,536"),
    "over-long in bytes alone": ("é" * 40_000, InvalidKeyError, "80,000"),
    "not UTF-8": (b"\xff", InvalidKeyError, "UTF-8"),
}
READ_KEYS: dict[str, tuple[Any, type[IKVError], str]] = {
    **KEYS,
    "a surrogate": ("\ud800", InvalidKeyError, "UTF-8"),
    "None": (None, KeyTypeError, "NoneType"),
    "int": (5, KeyTypeError, "5"),
    "bool": (True, KeyTypeError, "bool"),
    "list": (["a"], KeyTypeError, "list"),
    "memoryview": (memoryview(b"a"), KeyTypeError, "memoryview"),
}


@pytest.mark.parametrize("what", KEYS)
def test_impossible_keys_at_the_writer(store: Store, what: str) -> None:
    key, error, told = KEYS[what]
    bad = document(id=key, s="y")
    for call in (
        lambda: store.writer.upsert_fields(bad),
        lambda: store.writer.upsert_fields_batch([document(id="b"), bad]),
        lambda: store.writer.delete_fields(bad, ["s"]),
        lambda: store.writer.delete_document(bad),
    ):
        refused(store, call, error, told)


@pytest.mark.parametrize("value", [5, 1.5, True])
def test_keys_of_other_types_at_the_writer(store: Store, value: Any) -> None:
    """The value, the field and the two types that would do are named."""
    refused(
        store, lambda: store.writer.upsert_fields(document(id=value)), InvalidKeyError, repr(value), "'id'", "STRING"
    )


@pytest.mark.parametrize("what", READ_KEYS)
def test_impossible_keys_at_the_reader(store: Store, what: str) -> None:
    """Every call that takes keys refuses, wherever in its list the key stands."""
    key, error, told = READ_KEYS[what]
    reader = store.reader
    for call in (
        lambda: reader.get_string_value(key, "s"),
        lambda: reader.get_bytes_value(key, "s"),
        lambda: reader.get_int64_value(key, "n"),
        lambda: reader.get_bool_value(key, "n"),
        lambda: reader.get_value(key, "s"),
        lambda: reader.get_document(key),
        lambda: list(reader.multiget_values(["a", key], ["s"])),
        lambda: list(reader.multiget_documents(["a", key])),
        lambda: list(reader.multiget_string_values(bytes_primary_keys=[b"a", key], field_names=["s"])),
        lambda: list(reader.multiget_bytes_values(str_primary_keys=["a", key], field_names=["s"])),
    ):
        refused(store, call, error, told)


def test_a_single_key_is_no_list_of_keys(store: Store) -> None:
    """Its letters would be taken for keys."""
    for call in (
        lambda: store.reader.multiget_values("abc", ["s"]),
        lambda: store.reader.multiget_documents(b"abc"),  # type: ignore[arg-type]
    ):
        refused(store, call, InvalidArgumentError, "abc", "list")
    for names in ("str_primary_keys", "bytes_primary_keys"):
        with pytest.raises(InvalidArgumentError):
            store.reader.multiget_string_values(**{names: "abc"}, field_names=["s"])  # type: ignore[arg-type]


# -- field names -------------------------------------------------------------------------------

NAMES: list[Any] = ["", None, 5, b"s", "\ud800", ("s",), ["s"]]


@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_impossible_field_names_at_the_writer(store: Store, name: Any) -> None:
    writer = store.writer
    builder = IKVDocumentBuilder().put_string_field("id", "a")
    for call in (
        lambda: builder.put_string_field(name, "x"),
        lambda: builder.put_field(name, 1),
        lambda: IKVDocument.from_dict({name: 1}) if not isinstance(name, list) else builder.put_bool_field(name, True),
        lambda: writer.delete_fields(document(id="a"), ["s", name]),
        lambda: writer.delete_fields_batch([document(id="a")], [name]),
        lambda: writer.drop_fields_by_name(["s", name]),
    ):
        refused(store, call, FieldNameError, repr(name))
    if name != "":
        refused(store, lambda: writer.drop_fields_by_name_prefix(["s", name]), FieldNameError, repr(name))
    assert builder.build() == document(id="a"), "a refused field leaves the builder as it was"


@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_impossible_field_names_at_the_reader(store: Store, name: Any) -> None:
    reader = store.reader
    for call in (
        lambda: reader.get_string_value("a", name),
        lambda: reader.get_bytes_value("a", name),
        lambda: reader.get_int32_value("missing", name),
        lambda: reader.get_value("a", name),
        lambda: reader.get_document("a", ["s", name]),
        lambda: reader.multiget_string_values(str_primary_keys=["a"], field_names=["s", name]),
        lambda: reader.multiget_values(["a"], [name]),
        lambda: reader.multiget_documents(["a"], [name]),
        lambda: list(reader.scan([name])),
    ):
        refused(store, call, FieldNameError, repr(name))


def test_a_single_name_is_no_list_of_names(store: Store) -> None:
    """Its letters would be taken for names."""
    writer, reader = store.writer, store.reader
    for call in (
        lambda: writer.delete_fields(document(id="a"), "sn"),
        lambda: writer.drop_fields_by_name("sn"),
        lambda: writer.drop_fields_by_name_prefix("sn"),
        lambda: reader.get_document("a", "sn"),
        lambda: reader.multiget_values(["a"], "sn"),
        lambda: reader.scan("sn"),
    ):
        refused(store, call, InvalidArgumentError, "'sn'")


# -- values ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("put", "value", "told"),
    [
        ("put_int32_field", 2**31, "2**31"),
        ("put_int32_field", -(2**31) - 1, "2**31"),
        ("put_int64_field", 2**63, "2**63"),
        ("put_int64_field", -(2**63) - 1, "2**63"),
        ("put_field", 2**63, "INT64"),
        pytest.param("put_field", 10**5000, "huge", id="more digits than Python shows"),
        ("put_float32_field", 1e39, "FLOAT32"),
        pytest.param("put_float64_field", 10**400, "FLOAT64", id="over every float"),
        ("put_string_field", "\ud800", "UTF-8"),
    ],
)
def test_values_out_of_range(put: str, value: Any, told: str) -> None:
    builder = IKVDocumentBuilder()
    with pytest.raises(FieldValueError) as caught:
        getattr(builder, put)("x", value)
    assert type(caught.value) is FieldValueError
    assert "'x'" in str(caught.value)
    assert told in str(caught.value)
    assert len(str(caught.value)) < 400
    assert builder.build() == IKVDocument({})


@pytest.mark.parametrize(
    ("put", "value", "told"),
    [
        ("put_field", None, "delete_fields"),
        ("put_field", ["a"], "list"),
        ("put_field", {"a": 1}, "dict"),
        ("put_field", object(), "object"),
        ("put_string_field", b"x", "put_bytes_field"),
        ("put_string_field", 5, "str"),
        ("put_bytes_field", "x", "bytes"),
        ("put_int32_field", 1.0, "float"),
        ("put_int64_field", "1", "str"),
        ("put_int64_field", True, "put_bool_field"),
        ("put_float64_field", "1.0", "str"),
        ("put_bool_field", 1, "int"),
    ],
)
def test_values_of_unsupported_types(put: str, value: Any, told: str) -> None:
    builder = IKVDocumentBuilder()
    with pytest.raises(UnsupportedTypeError) as caught:
        getattr(builder, put)("x", value)
    assert isinstance(caught.value, TypeError)
    assert "'x'" in str(caught.value)
    assert told in str(caught.value)
    assert builder.build() == IKVDocument({})


def test_an_event_over_the_stores_limit(tmp_path: Path) -> None:
    """The whole batch is refused before anything is published, with both sizes."""
    store = Store(tmp_path, "memory", max_event_bytes=1_000)
    try:
        big = document(id="b", s="x" * 1_000)
        for call in (
            lambda: store.writer.upsert_fields(big),
            lambda: store.writer.upsert_fields_batch([document(id="a"), big]),
            lambda: store.writer.drop_fields_by_name([f"name-{number}" for number in range(200)]),
        ):
            refused(store, call, EventTooLargeError, "1,000", "split")
    finally:
        store.close()


def test_reading_as_another_type(store: Store) -> None:
    """The field and both types are named; a STRING may be read as bytes."""
    refused(store, lambda: store.reader.get_int32_value("a", "n"), FieldTypeError, "'n'", "INT64", "INT32")
    refused(store, lambda: store.reader.get_string_value("a", "n"), FieldTypeError, "'n'", "INT64", "STRING")
    refused(store, lambda: store.reader.get_bytes_value("a", "n"), FieldTypeError, "'n'", "INT64", "BYTES")
    assert store.reader.get_bytes_value("a", "s") == b"x"


@pytest.mark.parametrize("token", [None, "ikv1::", 5])
def test_what_is_no_token(store: Store, token: Any) -> None:
    refused(store, lambda: store.reader.wait_for(token), InvalidTokenError, type(token).__name__)


def test_a_token_of_another_log(store: Store) -> None:
    refused(store, lambda: store.reader.wait_for(Token("other", {0: 1})), InvalidTokenError, "other")


# -- plugins and options -----------------------------------------------------------------------


def test_an_unknown_backend(local: Store) -> None:
    """Valid ones and near misses are named; nothing is made."""
    builder = local.options("fresh").with_backend("lmbd")
    with pytest.raises(PluginNotFoundError) as caught:
        create_new_reader(builder.build())
    for told in ("'lmbd'", "did you mean 'lmdb'", "memory"):
        assert told in str(caught.value)
    assert not (local.directory / "fresh").exists()


def test_an_unknown_transport(local: Store) -> None:
    builder = local.options("fresh").with_transport("locale")
    for create in (create_new_reader, create_new_writer):
        with pytest.raises(PluginNotFoundError) as caught:
            create(builder.build())
        for told in ("'locale'", "did you mean 'local'", "memory"):
            assert told in str(caught.value)
    assert not (local.directory / "fresh").exists()


def test_a_requirement_that_a_plugin_lacks(local: Store) -> None:
    """C9: a reader and a writer alike refuse to be made, and name the plugins that would do."""
    builder = local.options("fresh").with_backend("lmdb").with_transport("memory").requires(durability="power-loss")
    for create in (create_new_reader, create_new_writer):
        with pytest.raises(RequirementError) as caught:
            create(builder.build())
        for told in ("transport 'memory'", "durability=power-loss", "transport 'local'"):
            assert told in str(caught.value)
    with pytest.raises(RequirementError, match=r"backend 'memory'.*process_shared.*backend 'lmdb'"):
        create_new_reader(local.options("fresh").with_backend("memory").requires(process_shared=True).build())
    assert not (local.directory / "fresh").exists()


def test_an_unknown_option(local: Store) -> None:
    """Of a backend, a transport and of a file: the valid ones and near misses."""
    with pytest.raises(UnknownOptionError) as caught:
        create_new_reader(local.options("fresh").with_backend("lmdb", durabilty="power-loss").build())
    assert "did you mean 'durability'" in str(caught.value)
    assert "lmdb" in str(caught.value)
    with pytest.raises(UnknownOptionError) as caught:
        create_new_writer(local.options().with_transport("local", hom="/tmp").build())
    for told in ("'hom'", "did you mean 'home'", "durability"):
        assert told in str(caught.value)
    assert not (local.directory / "fresh").exists()


def test_an_impossible_option_value(local: Store) -> None:
    for builder in (
        local.options("fresh").with_backend("lmdb", durability="forever"),
        local.options("fresh").with_transport("local", durability="forever"),
    ):
        with pytest.raises(InvalidOptionError, match=r"'forever'.*power-loss"):
            create_new_reader(builder.build())
    with pytest.raises(InvalidOptionError, match=r"'ignore'.*quarantine"):
        local.options().with_on_bad_event("ignore").build()
    with pytest.raises(InvalidOptionError, match=r"LOUD.*DEBUG"):
        local.options().with_console_logging("LOUD").build()


def test_partitions_that_the_store_has_not(local: Store) -> None:
    reader = create_new_reader(local.options("fresh").with_partitions([0, 7]).build())
    with pytest.raises(OptionsError, match=r"7.*partitions 0 to 0"):
        reader.startup()
    assert not (local.directory / "fresh").exists()


def test_missing_options_are_named_with_their_methods() -> None:
    """All of them at once; the mount directory for readers alone."""
    empty = ClientOptionsBuilder().build()
    with pytest.raises(MissingOptionError) as caught:
        create_new_reader(empty)
    names = ("store_name", "account_id", "account_passkey", "mount_directory")
    assert all(f"with_{name}" in str(caught.value) for name in names)
    with pytest.raises(MissingOptionError) as caught:
        create_new_writer(empty)
    assert all(f"with_{name}" in str(caught.value) for name in names[:3])
    assert "mount" not in str(caught.value)


# -- mounts ------------------------------------------------------------------------------------


def picture(path: Path) -> dict[str, Any]:
    """Names, times and bytes of a tree, LMDB's files by their size and time alone: they may be open here."""
    found: dict[str, Any] = {}
    for each in [path, *sorted(path.rglob("*"))]:
        status = each.lstat()
        content = each.read_bytes() if each.is_file() and each.suffix != ".mdb" else None
        found[str(each)] = (status.st_mode, status.st_mtime_ns, status.st_ino, status.st_size, content)
    return found


def mount_refused(store: Store, builder: ClientOptionsBuilder, error: type[IKVError], *told: str) -> None:
    """A reader with these options cannot be started, and leaves its mount as it is."""
    options = builder.build()
    assert options.mount_directory is not None
    before = picture(options.mount_directory)
    reader = create_new_reader(options)
    for _ in range(2):
        with pytest.raises(IKVError) as caught:
            reader.startup(timeout=PATIENCE)
        assert type(caught.value) is error, repr(caught.value)
        for each in (*told, str(options.mount_directory)):
            assert each in str(caught.value)
    assert picture(options.mount_directory) == before
    reader.shutdown()


def test_a_mount_that_is_a_file(local: Store) -> None:
    path = local.directory / "file"
    path.write_bytes(b"precious")
    mount_refused(local, local.options("file"), MountError, "file")


@pytest.mark.skipif(not Path("/proc/self/fdinfo").exists(), reason="there is no /proc")
def test_a_mount_that_is_not_writable(local: Store) -> None:
    for path in ("/proc/ikv", "/proc/self/fdinfo"):
        reader = create_new_reader(local.options().with_mount_directory(path).build())
        with pytest.raises(MountError, match=path):
            reader.startup()


@pytest.fixture
def used(local: Store) -> Store:
    """A store whose mount "mount" was used and shut down."""
    local.reader.wait_for(local.writer.upsert_fields(document(id="a", s="x")), PATIENCE)
    local.reader.shutdown()
    return local


def test_a_mount_of_another_store(used: Store, tmp_path: Path) -> None:
    other = Store(tmp_path / "other", "lmdb+local")
    try:
        mount_refused(
            used,
            other.options().with_mount_directory(used.directory / "mount"),
            MountMismatchError,
            used.account,
            other.account,
            "directory of its own",
        )
    finally:
        other.close()


def test_a_mount_of_another_backend(used: Store) -> None:
    manifest = used.directory / "mount" / "replica.json"
    manifest.write_bytes(dump_sealed({**load_sealed(manifest.read_bytes()), "backend": "rocksdb"}))
    mount_refused(used, used.options(), MountMismatchError, "backend", "rocksdb", "lmdb")


def test_a_mount_of_other_history(used: Store) -> None:
    mount_refused(used, used.options().with_history("partial"), MountMismatchError, "history", "complete", "partial")


def test_a_mount_of_a_newer_format(used: Store) -> None:
    manifest = used.directory / "mount" / "replica.json"
    manifest.write_bytes(dump_sealed({**load_sealed(manifest.read_bytes()), "format": 2}))
    mount_refused(used, used.options(), FormatVersionError, "2", "Upgrade")


def test_other_options_for_a_mount_that_is_open_in_this_process(local: Store) -> None:
    """The second client is refused, the first goes on."""
    for builder, told in (
        (local.options().with_on_bad_event("quarantine"), "quarantine"),
        (local.options().with_backend("lmdb", durability="power-loss"), "power-loss"),
    ):
        reader = create_new_reader(builder.build())
        with pytest.raises(InvalidOptionError, match=told):
            reader.startup()
        reader.shutdown()
    local.reader.wait_for(local.writer.upsert_fields(document(id="z")), PATIENCE)
    assert local.reader.get_string_value("z", "id") == "z"


# -- access ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["memory", "lmdb+local"])
def test_wrong_passkey_unknown_store_and_unknown_account_are_one_error(tmp_path: Path, kind: str) -> None:
    """Which of them is not told; the passkey is not shown; nothing is made."""
    store = Store(tmp_path, kind)
    try:
        texts = set()
        for builder in (
            store.options("fresh").with_account_passkey("wrong-passkey"),
            store.options("fresh").with_store_name("unknown"),
            store.options("fresh").with_account_id("unknown"),
        ):
            options = builder.build()
            for client in (create_new_reader(options), create_new_writer(options)):
                with pytest.raises(StoreAccessError) as caught:
                    client.startup()
                text = str(caught.value)
                assert "wrong-passkey" not in text
                assert "ikv store create" in text
                texts.add(text.replace(repr(options.store_name), "S").replace(repr(options.account_id), "A"))
                client.shutdown()
        assert len(texts) == 1
        assert not (tmp_path / "fresh").exists()
    finally:
        store.close()


def test_errors_that_are_builtins_too() -> None:
    """Callers who catch ValueError, TypeError or OSError catch ours."""
    for call, builtin in (
        (lambda: IKVDocument.from_dict({"": 1}), ValueError),
        (lambda: IKVDocument.from_dict({"x": None}), TypeError),  # type: ignore[dict-item]
        (lambda: ClientOptionsBuilder().with_store_name("").build(), ValueError),
    ):
        with pytest.raises(builtin):
            call()
    assert issubclass(MountError, OSError)
    assert issubclass(StoreAccessError, PermissionError)
    with suppress(FieldTypeError):
        raise FieldTypeError("x", FieldType.INT32.name, FieldType.INT64.name)
