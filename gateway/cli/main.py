"""``python -m gateway`` and ``gatehouse``: reads the command line, runs one command, ends with its status.

Exit statuses: 0 done; 1 it could not be done; 2 a setting or the command line is wrong. One line on stderr says why;
no command ends in a traceback, unless ``--debug`` asks for it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from gateway.cli import (
    backup,
    check,
    connect,
    dead,
    doctor,
    export,
    key,
    migrate,
    pair,
    replay,
    salvage,
    search,
    serve,
    sessions,
    status,
    trace,
)
from gateway.cli.command import CommandFailed, Invocation, Subcommand, denied
from gateway.cli.terminal import Terminal
from shared.errors import GatehouseError, SettingsError
from shared.printable import printable
from shared.settings import load_settings
from shared.version import VERSION

#: every command, in the order the help shows them
COMMANDS: tuple[Subcommand, ...] = (
    serve.COMMAND,
    check.COMMAND,
    doctor.COMMAND,
    status.COMMAND,
    trace.COMMAND,
    sessions.COMMAND,
    search.COMMAND,
    export.COMMAND,
    replay.COMMAND,
    dead.COMMAND,
    key.COMMAND,
    pair.COMMAND,
    connect.COMMAND,
    backup.BACKUP,
    backup.RESTORE,
    migrate.MIGRATE,
    salvage.COMMAND,
)

DESCRIPTION = "Run Gatehouse, or ask and mend one. Without a command it serves."
EPILOG = """\
examples:
  python -m gateway                      # run the gateway
  python -m gateway check                # would it start?
  python -m gateway status               # how is the one that runs?
  python -m gateway COMMAND --help       # the arguments and examples of a command

Settings come from the environment and from ./.env; `gatehouse` is the same program where it is installed.
Exit statuses: 0 done; 1 it could not be done; 2 a setting or the command line is wrong.
"""
INTERRUPTED = 130


def main(arguments: Sequence[str]) -> int:
    """Run a command and return the exit status."""
    given = parser().parse_args(arguments)
    command: Subcommand = given.command
    try:
        terminal = Terminal(as_json=getattr(given, "json", False))
        outcome = command.run(Invocation(load_settings(), given, terminal))
        return outcome if isinstance(outcome, int) else asyncio.run(outcome)
    except SettingsError as error:
        return complain(str(error), 2)
    except (CommandFailed, GatehouseError) as error:
        return complain(str(error), 1)
    except BrokenPipeError:
        # who read the output has seen enough; the interpreter's own flush at the end must not fail again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return complain("interrupted", INTERRUPTED)
    except Exception as error:
        if given.debug:
            raise
        if isinstance(error, PermissionError) and error.filename:
            return complain(denied(error), 1)
        said = f"{type(error).__name__}: {error}".rstrip(": ")
        return complain(f"{command.name} failed: {said} (--debug shows where)", 1)


def console_script() -> int:
    """Run a command of ``gatehouse``, which finds modules in the working directory too, after all others."""
    sys.path.append(str(Path.cwd()))
    return main(sys.argv[1:])


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser(
        prog="python -m gateway",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"gatehouse {VERSION}")
    top.add_argument("--debug", action="store_true", help="show the traceback of what fails unexpectedly")
    top.set_defaults(command=serve.COMMAND)
    names = ",".join(command.name for command in COMMANDS)
    commands = top.add_subparsers(metavar=f"{{{names}}}", title="commands")
    for command in COMMANDS:
        below = commands.add_parser(
            command.name,
            help=command.summary,
            description=command.summary[0].upper() + command.summary[1:] + ".",
            epilog="\n  ".join(["examples:", *command.examples]),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        below.set_defaults(command=command)
        if command.prints:
            below.add_argument("--json", action="store_true", help="print one JSON value, for programs")
        command.add_arguments(below)
    return top


def complain(line: str, status: int) -> int:
    """Write one line for the user to stderr and return the exit status."""
    sys.stderr.write(f"gatehouse: {printable(' '.join(line.split()))}\n")
    return status
