"""What a command is, and what it is given to do its work."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from gateway.cli.terminal import Terminal
from shared.settings import Settings


class CommandFailed(Exception):
    """Raised when a command cannot be done; its text is the one line for the user."""


def denied(error: PermissionError) -> str:
    """Return in words what this user may not do, and who may."""
    return f"{error.filename}: permission denied; run this as the user that the gateway runs as"


@dataclass(frozen=True, slots=True)
class Invocation:
    """One call of a command."""

    #: the settings of the environment and the ``.env`` file
    settings: Settings
    #: the parsed arguments of the command
    arguments: argparse.Namespace
    #: where it prints
    terminal: Terminal


def no_arguments(_: argparse.ArgumentParser) -> None:
    """Add no argument."""


@dataclass(frozen=True, slots=True)
class Subcommand:
    """One command of ``python -m gateway``."""

    #: the word it is called by
    name: str
    #: one line for the list of commands
    summary: str
    #: whole command lines for its help, each with ``#`` and what it does
    examples: tuple[str, ...]
    #: does it and returns the exit status; may raise CommandFailed, SettingsError and StoreError
    run: Callable[[Invocation], int | Coroutine[Any, Any, int]]
    #: adds its arguments to its parser
    add_arguments: Callable[[argparse.ArgumentParser], None] = no_arguments
    #: whether it prints something that ``--json`` gives to programs
    prints: bool = True
