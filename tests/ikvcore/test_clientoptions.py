"""ikvcore.clientoptions: what options take, refuse, default to and never show."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ikvcore.clientoptions import (
    ClientOptions,
    ClientOptionsBuilder,
    Requirements,
    require_reader,
    require_writer,
)
from ikvcore.errors import InvalidOptionError, MissingOptionError, OptionsError, UnknownOptionError
from ikvcore.models import Durability, Secret

CANARY = "canary" + "-4711"  # in two parts, so that a traceback's source lines don't hold it


def builder() -> ClientOptionsBuilder:
    return ClientOptionsBuilder()


def complete() -> ClientOptionsBuilder:
    return builder().with_store_name("profiles").with_account_id("demo").with_account_passkey(CANARY)


# -- the builder -------------------------------------------------------------------------------


def test_defaults_are_lmdb_over_a_local_log_with_info_on_the_console() -> None:
    options = builder().build()
    assert options == ClientOptions()
    assert (options.backend, dict(options.backend_options)) == ("lmdb", {})
    assert (options.transport, dict(options.transport_options)) == ("local", {})
    assert (options.partitions, options.on_bad_event, options.history) == (None, "raise", "complete")
    assert (options.console_logging, options.file_logging) == ("INFO", None)
    assert options.requires == Requirements()


def test_every_builder_method_sets_its_option(tmp_path: Path) -> None:
    options = (
        complete()
        .with_mount_directory(str(tmp_path))
        .with_backend("rocksdb", cache=1)
        .with_transport("kafka", servers="a:1")
        .with_partitions([1, 0, 1])
        .with_on_bad_event("quarantine")
        .with_history("partial")
        .with_console_logging("warn")
        .with_file_logging("Trace", tmp_path / "log")
        .requires("Query", durability="power-loss")
        .requires("Verify", process_shared=True, max_key_bytes=1000)
        .build()
    )
    assert options == ClientOptions(
        store_name="profiles",
        account_id="demo",
        account_passkey=Secret(CANARY),
        mount_directory=tmp_path,
        backend="rocksdb",
        backend_options={"cache": 1},
        transport="kafka",
        transport_options={"servers": "a:1"},
        partitions=(0, 1),
        on_bad_event="quarantine",
        history="partial",
        console_logging="WARN",
        file_logging=("TRACE", tmp_path / "log"),
        requires=Requirements(
            capabilities=frozenset({"Query", "Verify"}),
            levels={"durability": "power-loss", "process_shared": True, "max_key_bytes": 1000},
        ),
    )


def test_the_published_parameter_names_hold() -> None:
    options = (
        builder()
        .with_store_name(name="s")
        .with_account_id(id="a")
        .with_account_passkey(passkey="p")
        .with_mount_directory(dir="/m")
        .with_console_logging(level="INFO")
        .with_file_logging(level="INFO", filepath="/f")
        .build()
    )
    assert (options.store_name, options.account_id, options.account_passkey) == ("s", "a", Secret("p"))


def test_every_method_returns_the_builder() -> None:
    one = builder()
    assert one.with_store_name("s") is one.requires() is one.with_backend("memory") is one.with_partitions([0]) is one


def test_calling_again_replaces_and_none_takes_back() -> None:
    one = builder().with_backend("lmdb", map_size=1).with_backend("memory").with_store_name("a").with_store_name("b")
    assert dict(one.build().backend_options) == {}
    assert one.build().store_name == "b"
    assert one.with_store_name(None).build().store_name is None  # type: ignore[arg-type]  # as from os.environ.get


def test_built_options_share_nothing_with_the_builder() -> None:
    one = builder().with_backend("lmdb", map_size=1).with_partitions(iter([1]))
    options = one.build()
    again = one.requires("Query").with_backend("lmdb", map_size=2).build()
    assert options.backend_options["map_size"] == 1
    assert options.requires.capabilities == frozenset()
    assert options.partitions == again.partitions == (1,)


def test_options_cannot_be_changed() -> None:
    given = {"map_size": 1}
    options = ClientOptions(backend_options=given, requires=Requirements(levels={"durability": "none"}))
    given["map_size"] = 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.store_name = "other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        options.backend_options["map_size"] = 3  # type: ignore[index]
    with pytest.raises(TypeError):
        options.requires.levels["durability"] = "power-loss"  # type: ignore[index]
    assert options.backend_options["map_size"] == 1


def test_options_compare_by_value() -> None:
    assert complete().build() == complete().build()
    assert complete().build() != complete().with_account_passkey("other").build()
    assert complete().build() != complete().with_transport("local", durability="none").build()
    assert complete().build() != complete().requires("Query").build()


def test_options_take_keywords_only() -> None:
    with pytest.raises(TypeError):
        ClientOptions("profiles")  # type: ignore[call-arg]


def test_a_mount_directory_is_made_absolute_at_build_and_its_tilde_expanded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = builder().with_mount_directory("replica").with_file_logging("INFO", "log")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert one.build().mount_directory == tmp_path / "replica"
    assert one.build().file_logging == ("INFO", tmp_path / "log")
    assert builder().with_mount_directory("~/replica").build().mount_directory == tmp_path / "home" / "replica"
    assert builder().with_mount_directory(tmp_path / "x").build().mount_directory == tmp_path / "x"


@pytest.mark.parametrize("path", ["", b"/tmp", 3, "a\0b", "~no-such-user-here/x"])
def test_a_path_that_is_none_is_refused(path: Any) -> None:
    with pytest.raises(InvalidOptionError, match="mount_directory"):
        builder().with_mount_directory(path).build()
    with pytest.raises(InvalidOptionError, match="file_logging"):
        builder().with_file_logging("INFO", path).build()


def test_with_only_file_logging_there_is_no_console() -> None:
    assert builder().with_file_logging("info", "/x").build().console_logging is None


@pytest.mark.parametrize("name", [f"with_{option}" for option in ("store_name", "account_id", "backend", "transport")])
@pytest.mark.parametrize(("value", "reason"), [("", "empty"), (3, "not int"), (b"x", "not bytes")])
def test_names_are_str_and_not_empty(name: str, value: Any, reason: str) -> None:
    with pytest.raises(InvalidOptionError, match=rf"option {name[5:]} cannot be {value!r}: .*{reason}"):
        getattr(builder(), name)(value).build()


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (lambda: builder().with_on_bad_event("quarantin"), "on_bad_event.*'quarantin'.*did you mean 'quarantine'"),
        (lambda: builder().with_on_bad_event("Raise"), "use 'raise' or 'quarantine'"),
        (lambda: builder().with_history("compleat"), "history.*did you mean 'complete'"),
        (lambda: builder().with_console_logging("WARNING"), "console_logging.*ERROR, WARN, INFO.*did you mean 'warn'"),
        (lambda: builder().with_console_logging(10), "console_logging"),  # type: ignore[arg-type]
        (lambda: builder().with_file_logging("loud", "/x"), "file_logging.*'loud'"),
        (lambda: builder().with_partitions([]), "at least one"),
        (lambda: builder().with_partitions([-1]), "ints from 0"),
        (lambda: builder().with_partitions([65536]), "ints from 0"),
        (lambda: builder().with_partitions([True]), "ints from 0"),
        (lambda: builder().with_partitions("01"), "ints from 0"),  # type: ignore[arg-type]
        (lambda: builder().with_partitions(1), r"partitions cannot be 1: .*\(0,\)"),  # type: ignore[arg-type]
        (lambda: builder().requires(durability="powerloss"), "durability.*power-loss"),
        (lambda: builder().requires(process_shared=1), "process_shared"),
        (lambda: builder().requires(sharing="some"), "one-process, followers, shared"),
        (lambda: builder().requires(max_key_bytes=-1), "max_key_bytes"),
        (lambda: builder().requires(""), "requires.*empty"),
    ],
)
def test_impossible_values_are_refused_with_the_way_out(bad: Callable[[], ClientOptionsBuilder], message: str) -> None:
    with pytest.raises(InvalidOptionError, match=message):
        bad().build()


def test_an_unknown_required_level_is_refused_with_a_near_miss() -> None:
    with pytest.raises(UnknownOptionError, match="did you mean 'durability'"):
        builder().requires(durabilty="none").build()


def test_a_required_durability_is_a_word_or_a_level() -> None:
    one = builder().requires(durability=Durability.POWER_LOSS).build()
    assert one.requires.levels["durability"] == "power-loss"


@pytest.mark.parametrize("options", ["map_size=1", [("a", 1)], {1: 2}, {"": 1}])
def test_plugin_options_are_a_mapping_of_names(options: Any) -> None:
    with pytest.raises(InvalidOptionError, match="backend_options"):
        ClientOptions(backend_options=options)


# -- what is required --------------------------------------------------------------------------


def test_building_without_a_store_is_fine_and_a_client_names_all_that_is_missing() -> None:
    with pytest.raises(MissingOptionError) as caught:
        require_writer(builder().build())
    for name in ("store_name", "account_id", "account_passkey"):
        assert f"ClientOptionsBuilder.with_{name}" in str(caught.value)
    assert "mount_directory" not in str(caught.value)


def test_what_is_there_is_not_called_missing() -> None:
    with pytest.raises(MissingOptionError) as caught:
        require_writer(complete().with_account_id(None).build())  # type: ignore[arg-type]
    assert str(caught.value) == "account_id is required: set it with ClientOptionsBuilder.with_account_id"


def test_a_reader_needs_a_mount_directory_unless_its_backend_has_none() -> None:
    require_writer(complete().build())
    require_reader(complete().build(), mount_needed=False)
    require_reader(complete().with_mount_directory("/x").build(), mount_needed=True)
    with pytest.raises(MissingOptionError, match="with_mount_directory"):
        require_reader(complete().build(), mount_needed=True)


# -- secrets -----------------------------------------------------------------------------------


def everything_shown(thing: object) -> str:
    shown = [repr(thing), str(thing), f"{thing}", f"{thing!r:>5}"]
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        shown += [repr(dataclasses.asdict(thing)), repr(dataclasses.astuple(thing)), repr(vars(thing))]
        shown += [json.dumps(dataclasses.asdict(thing), default=str), repr(dataclasses.replace(thing))]
    return "\n".join(shown)


def test_the_passkey_is_in_no_form_of_the_options() -> None:
    for options in (complete().build(), ClientOptions(account_passkey=CANARY), copy.deepcopy(complete().build())):  # type: ignore[arg-type]
        assert CANARY not in everything_shown(options)
        assert options.account_passkey is not None
        assert options.account_passkey.reveal() == CANARY


def test_the_passkey_is_in_no_form_of_the_builder() -> None:
    one = complete()
    assert CANARY not in everything_shown(one)
    assert CANARY not in repr([getattr(one, slot) for slot in one.__slots__])


def test_options_with_a_passkey_are_not_pickled_and_those_without_are() -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="from_env"):
            pickle.dumps(complete().build(), protocol)
        options = builder().with_backend("lmdb", map_size=1).requires("Query", durability="none").build()
        assert pickle.loads(pickle.dumps(options, protocol)) == options


def test_a_secret_compares_hashes_and_copies_without_showing_itself() -> None:
    secret = Secret(CANARY)
    assert secret == Secret(CANARY)
    assert secret != CANARY
    assert hash(secret) == hash(Secret(CANARY))
    assert copy.deepcopy([secret]) == [secret]
    assert CANARY not in everything_shown(secret)
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(secret)


@pytest.mark.parametrize(
    "name",
    [
        "sasl_password",
        "client_SECRET",
        "passkey",
        "api_token",
        "ssl_key_file",
        "sasl_passwort",
        "sasl.jaas.config",
        "sasl.oauthbearer.config",
    ],
)
def test_plugin_options_that_sound_like_secrets_are_neither_shown_nor_pickled(name: str) -> None:
    for options in (
        builder().with_transport("kafka", **{name: CANARY, "servers": "a:1"}).build(),
        builder().with_backend("x", config={"sasl": [{name: CANARY}], "servers": "a:1"}).build(),
    ):
        assert CANARY not in everything_shown(options)
        assert "***" in repr(options)
        assert "a:1" in repr(options)
        with pytest.raises(TypeError, match="not pickled"):
            pickle.dumps(options)


@pytest.mark.parametrize("passkey", [CANARY.encode(), "", [CANARY]])
def test_a_refused_passkey_is_not_shown(passkey: Any) -> None:
    with pytest.raises(InvalidOptionError, match="account_passkey") as caught:
        builder().with_account_passkey(passkey).build()
    assert CANARY not in "".join(traceback.format_exception(caught.value))


def own_frames(error: BaseException) -> str:
    """The error's traceback with local variables, but for the frames of this file, which hold the canary by design."""
    text = []
    link: BaseException | None = error
    while link is not None:
        frames = traceback.StackSummary.extract(traceback.walk_tb(link.__traceback__), capture_locals=True)
        text += [str(frame.locals) for frame in frames if frame.filename != __file__]
        text.append(repr(link))
        link = link.__cause__ or link.__context__
    return "\n".join(text)


@pytest.mark.parametrize("rest", ["partitions = [-1]", "unknown = 1", "[backend", "[logging]\nconsole = 'loud'"])
def test_the_passkey_is_in_no_traceback_of_a_toml_file_also_with_local_variables(tmp_path: Path, rest: str) -> None:
    path = tmp_path / "ikv.toml"
    path.write_text(f'account_passkey = "{CANARY}"\n{rest}\n')
    with pytest.raises(OptionsError) as caught:
        ClientOptions.from_toml(path)
    assert "ikv.toml" in own_frames(caught.value)
    assert CANARY not in own_frames(caught.value)


@pytest.mark.parametrize(("name", "value"), [("PARTITIONS", "x"), ("HISTORY", "y"), ("FILE_LOGGING", "z")])
def test_the_passkey_is_in_no_traceback_of_the_environment_also_with_local_variables(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv("IKV_ACCOUNT_PASSKEY", CANARY)
    monkeypatch.setenv(f"IKV_{name}", value)
    with pytest.raises(OptionsError, match=value) as caught:
        ClientOptions.from_env()
    assert CANARY not in own_frames(caught.value)


def test_malformed_plugin_options_in_the_environment_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    for text in (f'{{"sasl_password": "{CANARY}"', f'["{CANARY}"]'):
        monkeypatch.setenv("IKV_TRANSPORT_OPTIONS", text)
        with pytest.raises(InvalidOptionError, match=r"IKV_TRANSPORT_OPTIONS.*JSON object") as caught:
            ClientOptions.from_env()
        assert CANARY not in own_frames(caught.value)


# -- TOML --------------------------------------------------------------------------------------

TOML = """
store_name = "profiles"
account_id = "demo"
account_passkey_file = "passkey"
mount_directory = "replica"
partitions = [0, 1]
on_bad_event = "quarantine"
history = "partial"

[backend]
name = "rocksdb"
cache = 1

[transport]
name = "kafka"
config = { "bootstrap.servers" = "a:1" }

[logging]
console = "warn"
file = "ikv.log"
file_level = "DEBUG"

[requires]
capabilities = ["Checkpoint"]
durability = "process-crash"
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "ikv.toml"
    path.write_text(text)
    return path


def full_options(directory: Path) -> ClientOptions:
    return (
        complete()
        .with_mount_directory(directory / "replica")
        .with_partitions((0, 1))
        .with_on_bad_event("quarantine")
        .with_history("partial")
        .with_backend("rocksdb", cache=1)
        .with_transport("kafka", config={"bootstrap.servers": "a:1"})
        .with_console_logging("WARN")
        .with_file_logging("DEBUG", directory / "ikv.log")
        .requires("Checkpoint", durability="process-crash")
        .build()
    )


def test_a_toml_file_sets_every_option_with_paths_relative_to_itself(tmp_path: Path) -> None:
    (tmp_path / "passkey").write_text(CANARY + "\n")
    assert ClientOptions.from_toml(write(tmp_path, TOML)) == full_options(tmp_path)


def test_an_empty_toml_file_gives_the_defaults(tmp_path: Path) -> None:
    assert ClientOptions.from_toml(str(write(tmp_path, ""))) == ClientOptions()


def test_a_section_of_a_toml_file_is_read_alone(tmp_path: Path) -> None:
    (tmp_path / "passkey").write_text(CANARY)
    tables = TOML
    for table in ("backend", "transport", "logging", "requires"):
        tables = tables.replace(f"[{table}]", f"[tool.ikv.{table}]")
    path = write(tmp_path, f"[project]\nname = 'other'\n[tool.ikv]\n{tables}")
    assert ClientOptions.from_toml(path, section="tool.ikv") == full_options(tmp_path)
    with pytest.raises(InvalidOptionError, match=r"'tool\.kv'.*no such table"):
        ClientOptions.from_toml(path, section="tool.kv")


def test_plugin_tables_without_a_name_go_to_the_default_plugin(tmp_path: Path) -> None:
    options = ClientOptions.from_toml(write(tmp_path, "[transport]\ndurability = 'none'\n"))
    assert (options.transport, dict(options.transport_options)) == ("local", {"durability": "none"})


def test_a_log_file_without_a_level_logs_at_info(tmp_path: Path) -> None:
    options = ClientOptions.from_toml(write(tmp_path, "[logging]\nfile = 'x'\n"))
    assert (options.console_logging, options.file_logging) == (None, ("INFO", tmp_path / "x"))


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("store_nam = 'x'", UnknownOptionError, r"ikv\.toml has no option 'store_nam' \(did you mean 'store_name'"),
        ("[logging]\nconsol = 'INFO'", UnknownOptionError, "did you mean 'console'"),
        ("[requires]\ndurabilty = 'none'", UnknownOptionError, "did you mean 'durability'"),
        ("[requires]\ncapabilities = 'Query'", InvalidOptionError, "set of names"),
        ("[backend", InvalidOptionError, r"ikv\.toml.*not TOML"),
        ("backend = 'lmdb'", InvalidOptionError, r"\[backend\]"),
        ("[backend]\nname = 3", InvalidOptionError, "backend cannot be 3"),
        ("[logging]\nfile_level = 'INFO'", InvalidOptionError, "file = "),
        ("mount_directory = 3", InvalidOptionError, "mount_directory cannot be 3"),
        ("partitions = 0", InvalidOptionError, "partitions"),
        ("account_passkey = 3", InvalidOptionError, "account_passkey"),
        ("account_passkey = 'a'\naccount_passkey_file = 'b'", OptionsError, "both given"),
        ("account_passkey_file = 'missing'", InvalidOptionError, "account_passkey_file.*cannot be read"),
        ("history = 'all'", InvalidOptionError, "history"),
    ],
)
def test_a_wrong_toml_file_is_refused(tmp_path: Path, text: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ClientOptions.from_toml(write(tmp_path, text))


def test_a_toml_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidOptionError, match=r"missing\.toml.*No such file"):
        ClientOptions.from_toml(tmp_path / "missing.toml")
    (tmp_path / "latin.toml").write_bytes(b"store_name = '\xe9'")
    with pytest.raises(InvalidOptionError, match=r"latin\.toml.*not TOML"):
        ClientOptions.from_toml(tmp_path / "latin.toml")


@pytest.mark.parametrize("content", [b"", b"\n" + CANARY.encode(), b"\xff" + CANARY.encode()])
def test_a_passkey_file_without_a_passkey_is_refused_and_not_shown(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "passkey").write_bytes(content)
    with pytest.raises(InvalidOptionError, match="first line") as caught:
        ClientOptions.from_toml(write(tmp_path, "account_passkey_file = 'passkey'"))
    assert CANARY not in own_frames(caught.value)


# -- the environment ---------------------------------------------------------------------------


def test_the_environment_sets_every_option_it_has(tmp_path: Path) -> None:
    options = ClientOptions.from_env(
        {
            "IKV_STORE_NAME": "profiles",
            "IKV_ACCOUNT_ID": "demo",
            "IKV_ACCOUNT_PASSKEY": CANARY,
            "IKV_MOUNT_DIRECTORY": str(tmp_path / "replica"),
            "IKV_BACKEND": "rocksdb",
            "IKV_BACKEND_OPTIONS": '{"cache": 1}',
            "IKV_TRANSPORT": "kafka",
            "IKV_TRANSPORT_OPTIONS": '{"config": {"bootstrap.servers": "a:1"}}',
            "IKV_PARTITIONS": "0, 1",
            "IKV_ON_BAD_EVENT": "quarantine",
            "IKV_HISTORY": "partial",
            "IKV_CONSOLE_LOGGING": "warn",
            "IKV_FILE_LOGGING": f"DEBUG:{tmp_path / 'ikv.log'}",
        }
    )
    assert options == dataclasses.replace(full_options(tmp_path), requires=Requirements())


def test_without_variables_the_environment_gives_the_defaults() -> None:
    assert ClientOptions.from_env({}) == ClientOptions()


def test_empty_variables_count_as_absent_and_other_variables_are_ignored() -> None:
    environ = {"IKV_STORE_NAME": "", "IKV_HOME": "/x", "IKV_TEST_BROKER": "y", "IKV_REQUIRED": "z", "STORE_NAME": "s"}
    assert ClientOptions.from_env(environ) == ClientOptions()


def test_the_process_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IKV_STORE_NAME", "from-here")
    assert ClientOptions.from_env().store_name == "from-here"
    assert ClientOptions.from_env({}).store_name is None


def test_a_passkey_file_named_in_the_environment_is_read(tmp_path: Path) -> None:
    (tmp_path / "passkey").write_text(f"{CANARY}\r\nignored\n")
    options = ClientOptions.from_env({"IKV_ACCOUNT_PASSKEY_FILE": str(tmp_path / "passkey")})
    assert options.account_passkey == Secret(CANARY)


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"IKV_PARTITIONS": "0;1"}, "IKV_PARTITIONS cannot be '0;1'.*commas"),
        ({"IKV_FILE_LOGGING": "DEBUG"}, "LEVEL:path"),
        ({"IKV_FILE_LOGGING": "DEBUG:"}, "LEVEL:path"),
        ({"IKV_FILE_LOGGING": "LOUD:/x"}, "'LOUD'"),
        ({"IKV_BACKEND_OPTIONS": "map_size=1"}, "IKV_BACKEND_OPTIONS.*JSON object"),
        ({"IKV_HISTORY": "ful"}, "history"),
        ({"IKV_ACCOUNT_PASSKEY": "a", "IKV_ACCOUNT_PASSKEY_FILE": "b"}, "IKV_ACCOUNT_PASSKEY_FILE are both given"),
        ({"IKV_ACCOUNT_PASSKEY_FILE": "/no/such"}, "IKV_ACCOUNT_PASSKEY_FILE cannot be '/no/such'.*No such file"),
    ],
)
def test_a_wrong_variable_is_refused(environ: dict[str, str], message: str) -> None:
    with pytest.raises(OptionsError, match=message):
        ClientOptions.from_env(environ)
