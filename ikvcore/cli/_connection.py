"""Which account on which transport, and which replica: the options of every command that opens something.

A command takes a `Connection` as its first parameter and is decorated with `connected`, which gives it the options in
its place. A setting comes from its option, else from its IKV_* variable, else from the TOML file of --config.
"""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias, TypedDict

import typer

from ikvcore.cli._passkey import passkey_of
from ikvcore.clientoptions import ClientOptions
from ikvcore.models import StoreDescription

__all__ = ["PANEL", "AdminArguments", "AsJson", "Connection", "StoreName", "connected", "parsed_options"]

StoreName: TypeAlias = Annotated[str, typer.Argument(metavar="STORE", show_default=False, help="The store's name.")]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON.")]

PANEL: Final = "Connection"
"""Heading of these options in a command's help."""
_QUIET: Final = "WARN"
"""Of the log: an application wants to see more than somebody who runs one command."""


class AdminArguments(TypedDict):
    """The keyword arguments that all functions of ikvcore.admin take."""

    account_id: str
    account_passkey: str
    transport: str
    transport_options: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Connection:
    """What the options, the environment and the TOML file say together."""

    settings: Mapping[str, Any] = field(repr=False)
    """Keyword arguments of ClientOptions."""
    _described: dict[str, StoreDescription] = field(default_factory=dict, init=False, repr=False)
    """By store: each look at one costs the check of the passkey, about a tenth of a second."""

    def admin(self, *, confirm: bool = False) -> AdminArguments:
        """The keyword arguments for ikvcore.admin. `confirm` asks twice for a passkey that is new."""
        options = ClientOptions(**self._with_passkey(confirm=confirm))
        assert options.account_passkey is not None
        return AdminArguments(
            account_id=self.account_id,
            account_passkey=options.account_passkey.reveal(),
            transport=options.transport,
            transport_options=dict(options.transport_options),
        )

    def writer_options(self, store: str) -> ClientOptions:
        """Options of a writer of `store`."""
        return ClientOptions(**{**self._with_passkey(), "account_id": self.account_id, "store_name": store})

    def reader_options(self, store: str) -> ClientOptions:
        """Options of a reader of `store`: where no mount directory is named, of a replica that is the tool's own."""
        options = self.writer_options(store)
        if options.mount_directory is not None:
            return options
        from ikvcore.cli._own_mount import own_mount

        return replace(options, mount_directory=own_mount(self.describe(store), options))

    def describe(self, store: str) -> StoreDescription:
        """What was fixed when the store was made."""
        from ikvcore import admin

        if store not in self._described:
            self._described[store] = admin.describe_store(store, **self.admin())
        return self._described[store]

    @property
    def account_id(self) -> str:
        """The account's name."""
        account_id = self.settings.get("account_id")
        if not account_id:
            raise typer.BadParameter("an account is needed: use --account-id, or set IKV_ACCOUNT_ID")
        return str(account_id)

    def _with_passkey(self, *, confirm: bool = False) -> dict[str, Any]:
        passkey = self.settings.get("account_passkey") or passkey_of("account-passkey", None, None, confirm=confirm)
        return {**self.settings, "account_passkey": passkey}


def connected(*, replica: bool = False) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorate a command whose first parameter is a Connection: on the command line it has options in its place.

    `replica` adds those of a mount and its backend.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def run(**given: Any) -> None:
            own = {name: given.pop(name) for name in _parameters(replica=replica)}
            command(_connection(own), **given)

        signature = inspect.signature(command, eval_str=True)
        _, *parameters = signature.parameters.values()
        parameters += _parameters(replica=replica).values()
        run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]  # what typer makes the options from
            [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in parameters]
        )
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        return run

    return decorate


def _parameters(*, replica: bool) -> Mapping[str, inspect.Parameter]:
    given_by = (_log_options, _replica_options) if replica else (_log_options,)
    return {
        name: each
        for function in given_by
        for name, each in inspect.signature(function, eval_str=True).parameters.items()
    }


def _log_options(
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", envvar="IKV_CONFIG", help="A TOML file with any of these settings.", rich_help_panel=PANEL
        ),
    ] = None,
    section: Annotated[
        str | None,
        typer.Option(
            "--section",
            envvar="IKV_CONFIG_SECTION",
            help="The table of that file that holds them, such as tool.ikv.",
            rich_help_panel=PANEL,
        ),
    ] = None,
    account_id: Annotated[
        str | None, typer.Option("--account-id", help="The account; or IKV_ACCOUNT_ID.", rich_help_panel=PANEL)
    ] = None,
    account_passkey: Annotated[
        str | None,
        typer.Option(
            "--account-passkey",
            help="Its passkey. Other users may see it in the list of processes: better IKV_ACCOUNT_PASSKEY, a file, or "
            "nothing, to be asked for it.",
            rich_help_panel=PANEL,
        ),
    ] = None,
    account_passkey_file: Annotated[
        Path | None,
        typer.Option(
            "--account-passkey-file",
            help="A file whose first line is the passkey; or IKV_ACCOUNT_PASSKEY_FILE.",
            rich_help_panel=PANEL,
        ),
    ] = None,
    transport: Annotated[
        str | None,
        typer.Option(
            "--transport",
            help="Where the stores' logs are kept; or IKV_TRANSPORT. Default: local.",
            rich_help_panel=PANEL,
        ),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option",
            metavar="KEY=VALUE",
            help="An option of the transport; repeat it for more. A value that is JSON is read as JSON, else as text. "
            "IKV_TRANSPORT_OPTIONS, a JSON object, gives those that are not named here.",
            rich_help_panel=PANEL,
        ),
    ] = None,
) -> None:
    """The options of whatever opens a log; see _parameters."""


def _replica_options(
    mount_directory: Annotated[
        str | None,
        typer.Option(
            "--mount-directory",
            metavar="DIRECTORY",
            help="The replica to use; or IKV_MOUNT_DIRECTORY. Default: one that this tool keeps for itself.",
            rich_help_panel=PANEL,
        ),
    ] = None,
    backend: Annotated[
        str | None,
        typer.Option(
            "--backend", help="The storage of that replica; or IKV_BACKEND. Default: lmdb.", rich_help_panel=PANEL
        ),
    ] = None,
    backend_option: Annotated[
        list[str] | None,
        typer.Option(
            "--backend-option",
            metavar="KEY=VALUE",
            help="An option of the backend; as --option, with IKV_BACKEND_OPTIONS.",
            rich_help_panel=PANEL,
        ),
    ] = None,
) -> None:
    """The options of whatever opens a replica; see _parameters."""


def _connection(given: Mapping[str, Any]) -> Connection:
    from ikvcore._optionsources import read_env, read_toml

    settings: dict[str, Any] = {}
    if given["config"] is not None:
        settings = read_toml(given["config"], given["section"])
    elif given["section"] is not None:
        raise typer.BadParameter("--section names a table of the file of --config; give that too")
    for source in (read_env(None), _of_command_line(given)):
        settings = _laid_over(settings, source)
    # Results go to stdout alone, whatever an application's settings say. Nobody scrapes one command.
    return Connection(settings={**settings, "console_logging": _QUIET, "installed_observers": False})


def _of_command_line(given: Mapping[str, Any]) -> dict[str, Any]:
    plain = {name: given.get(name) for name in ("account_id", "transport", "backend", "mount_directory")}
    for name, value in plain.items():
        # As from a variable that is not set: what would be meant is another's, or the working directory.
        if value is not None and not str(value):
            raise typer.BadParameter(f"--{name.replace('_', '-')} is empty; give it a value, or leave it out")
    options = {
        "transport_options": parsed_options(given["option"]),
        "backend_options": parsed_options(given.get("backend_option")),
    }
    settings = {name: value for name, value in {**plain, **options}.items() if value}
    if given["account_passkey"] is not None or given["account_passkey_file"] is not None:
        settings["account_passkey"] = passkey_of(
            "account-passkey", given["account_passkey"], given["account_passkey_file"]
        )
    return settings


def _laid_over(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of both, the upper ones where both have some. Options of a plugin add up, unless the upper names
    another plugin.
    """
    merged = {**lower, **upper}
    for kind in ("backend", "transport"):
        name = f"{kind}_options"
        if upper.get(kind, lower.get(kind)) == lower.get(kind):
            merged[name] = {**lower.get(name, {}), **upper.get(name, {})}
    return merged


def parsed_options(options: Sequence[str] | None) -> dict[str, Any]:
    """Options of a plugin from KEY=VALUE words."""
    return dict(map(_parsed_option, options or ()))


def _parsed_option(text: str) -> tuple[str, Any]:
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise typer.BadParameter(f"{text!r} is no option of a plugin: write it as KEY=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
    except RecursionError:
        raise typer.BadParameter(f"the value of option {name!r} is nested too deeply") from None
