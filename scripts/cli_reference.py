"""Writes docs/reference/cli.md from the commands themselves: `make reference`; with --check only compares."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from ikvcore.cli import app
from ikvcore.cli._connection import PANEL

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "cli.md"
HEAD = """\
# The `ikv` command

<!-- made by `make reference` from the commands themselves; do not edit -->

Results go to stdout, messages to stderr. Exit codes: 0 done, 1 an error that the message explains, 2 a wrong command
line, 3 all went well and the answer is no (not found, not healthy, damaged, rows refused), 130 Ctrl-C.
`ikv --debug COMMAND ...` shows the traceback of an error. `ikv --install-completion` installs completion for your
shell.

| Command | |
| --- | --- |
"""


def page() -> str:
    """The whole page."""
    commands = list(leaves(typer.main.get_command(app), "ikv"))
    rows = "".join(
        f"| [`{path}`](#{path.replace(' ', '-')}) | {first_sentence(command)} |\n" for path, command in commands
    )
    connection: dict[str, Any] = {}
    sections = [section(path, command, connection) for path, command in commands]
    return HEAD + rows + "".join(sections) + connection_section(connection.values())


def leaves(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every command that does something, with the words that call it."""
    if not hasattr(command, "commands"):
        yield path, command
        return
    if command.invoke_without_command and path != "ikv":
        yield path, command
    for name, each in command.commands.items():
        if not each.hidden:
            yield from leaves(each, f"{path} {name}")


def section(path: str, command: Any, connection: dict[str, Any]) -> str:
    """One command; its connection options are collected, to be told once."""
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [each for each in command.params if each.param_type_name == "option" and each.name != "help"]
    shared = [each for each in options if each.rich_help_panel == PANEL]
    connection.update({each.name: each for each in shared})
    own = [each for each in options if each not in shared]
    words = " ".join(
        [path, *(usage(each) for each in arguments), *(f"{name(each)} ..." for each in own if each.required)]
    )
    text = f"\n## {path}\n\n{command.help}\n\n```sh\n{words} [options]\n```\n"
    text += table("Argument", [(f"`{usage(each)}`", each) for each in arguments])
    text += table("Option", [(spelled(each), each) for each in own])
    if any(each.name == "mount_directory" for each in shared):
        text += "\nAnd [connection options](#connection-options), those of a replica too.\n"
    elif shared:
        text += "\nAnd [connection options](#connection-options) of a log.\n"
    return text + (f"\n{command.epilog.replace('Example: ', 'Example: `')}`\n" if command.epilog else "")


def connection_section(options: Any) -> str:
    """What the commands share."""
    return (
        "\n## Connection options\n\nA setting comes from its option, else from its `IKV_*` variable, else from the "
        "TOML file of `--config`.\n" + table("Option", [(spelled(each), each) for each in options])
    )


def table(heading: str, rows: list[tuple[str, Any]]) -> str:
    """Names and what they are for."""
    if not rows:
        return ""
    lines = [f"| {label} | {described(each)} |" for label, each in rows]
    return f"\n| {heading} | |\n| --- | --- |\n" + "\n".join(lines) + "\n"


def usage(argument: Any) -> str:
    """An argument as it stands in a command line."""
    word = argument.metavar or argument.name.upper()
    word = word if argument.required else f"[{word}]"
    return f"{word}..." if argument.nargs != 1 else word


def name(option: Any) -> str:
    """The option's long name."""
    return max(option.opts, key=len)


def spelled(option: Any) -> str:
    """The option with all its names, and what it takes."""
    names = ", ".join(f"`{each}`" for each in [*option.opts, *option.secondary_opts])
    taken = "" if option.is_flag else f" {option.metavar or option.name.rpartition('_')[2].upper()}"
    return f"{names}{taken}".replace("|", "\\|")


def described(parameter: Any) -> str:
    """Its help, and its default where it has one."""
    text = parameter.help or ""
    default = parameter.default
    if parameter.param_type_name == "option" and not parameter.is_flag and isinstance(default, (int, str)) and default:
        text += f" Default: {default}."
    if parameter.required and parameter.param_type_name == "option":
        text += " Required."
    return text.replace("\n", " ").replace("|", "\\|").strip()


def first_sentence(command: Any) -> str:
    """What the list of commands says of one."""
    return str(command.help).split("\n\n")[0].replace("\n", " ").partition(". ")[0].rstrip(".")


def main() -> int:
    """Write the page, or say that it is out of date."""
    text = page()
    if "--check" not in sys.argv:
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(text, encoding="utf-8")
        return 0
    if PAGE.read_text(encoding="utf-8") != text:
        print(f"{PAGE.name} is not what the commands say; write it again with: make reference", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
