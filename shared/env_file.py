"""The ``.env`` file: settings beside the environment, read strictly, so that a slip in it does not pass unseen."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

from dotenv import dotenv_values
from dotenv.parser import parse_stream

from shared.errors import SettingsError


def read_env_file(path: Path) -> dict[str, str]:
    """Return the values of a file of ``NAME=value`` lines, none where there is no file. Raises SettingsError."""
    if not path.is_file():
        return {}
    try:
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise SettingsError(str(path), f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise SettingsError(str(path), f"is not UTF-8 in line {line_of(error)}") from None
    for binding in parse_stream(StringIO(text)):
        if binding.error or (binding.key is not None and binding.value is None):
            written = binding.original.string
            line = binding.original.line + written[: len(written) - len(written.lstrip())].count("\n")
            raise SettingsError(str(path), f"line {line} is not of the form NAME=value")
    return {name: value for name, value in dotenv_values(stream=StringIO(text)).items() if value is not None}


def line_of(error: UnicodeDecodeError) -> int:
    """Return the number of the line that is not UTF-8."""
    return error.object.count(b"\n", 0, error.start) + 1
