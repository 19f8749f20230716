"""Groups of commands that are imported when they are called: a start takes what it needs.

The drivers of PostgreSQL, Kafka and HTTP together take longer to import than most commands work.
"""

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from importlib import import_module
from inspect import cleandoc
from typing import Any, ClassVar, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command


class Home(NamedTuple):
    """Where a command is: its module, its name there, and the line that a list of commands has."""

    module: str
    name: str
    help: str


def _family() -> None:
    """Only with a callback is an instance without commands a group."""


def group(
    told: str,
    homes: Mapping[str, Home],
    options: Callable[..., None] = _family,
    *,
    alone: bool = False,
) -> typer.Typer:
    """Make a group of commands that are not imported yet; `options` takes the group's own.

    Where it means something `alone`, `options` is what then runs; it is called before each command
    as well.
    """
    kind = type("Group", (_Group,), {"homes": homes})
    made = typer.Typer(
        cls=kind,
        no_args_is_help=not alone,
        invoke_without_command=alone,
        add_completion=False,
        pretty_exceptions_enable=False,  # `main` tells errors
        help=told,
    )
    made.callback()(options)
    return made


class _Imported(MutableMapping[str, Any]):
    """Commands by name; looking one up imports it, listing them does not."""

    def __init__(self, homes: Mapping[str, Home]) -> None:
        self.homes, self.known = homes, dict[str, Any]()

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401 - a command or a group of typer's own
        if name not in self.known:
            home = self.homes[name]
            found = getattr(import_module(home.module), home.name)
            if not isinstance(found, typer.Typer):
                alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
                alone.command(name)(found)
                found = alone
            self.known[name] = get_command(found)
            self.known[name].name = name
            _let_flow(self.known[name])
        return self.known[name]

    def __setitem__(self, name: str, command: Any) -> None:  # noqa: ANN401 - the same
        self.known[name] = command

    def __delitem__(self, name: str) -> None:
        del self.known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.homes)

    def __len__(self) -> int:
        return len(self.homes)


def _let_flow(command: Any) -> None:  # noqa: ANN401 - typer's own
    r"""Let paragraphs of a help fill the terminal; `\b` begins one whose lines stay."""
    paragraphs = cleandoc(command.help or "").split("\n\n")
    flowing = [each if each[:1] == "\b" else " ".join(each.split("\n")) for each in paragraphs]
    command.help = "\n\n".join(flowing)
    if not isinstance(command, _Group):  # its commands are not imported yet
        for own in getattr(command, "commands", {}).values():
            _let_flow(own)


class _Group(TyperGroup):
    homes: ClassVar[Mapping[str, Home]]

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401 - passed on
        super().__init__(**settings)
        self.imported = _Imported(self.homes)
        self.commands = self.imported

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401, ARG002 - typer's signature
        return list(self.homes)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ANN401 - typer's signature
        """Give the command once it was asked for by name, else what a list of them needs."""
        if cmd_name in self.imported.known or cmd_name not in self.homes:
            return super().get_command(ctx, cmd_name)
        return TyperCommand(cmd_name, help=self.homes[cmd_name].help)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # noqa: ANN401 - the same
        self.commands.get(args[0] if args else "")
        return super().resolve_command(ctx, args)
