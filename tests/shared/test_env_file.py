from __future__ import annotations

from pathlib import Path

import pytest

from shared.env_file import read_env_file
from shared.errors import SettingsError


def written(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / ".env"
    path.write_bytes(content)
    return path


def test_names_values_comments_and_quotes_are_read(tmp_path: Path) -> None:
    content = "\ufeff# a comment\n\nPORT=9001\nexport GATEHOUSE_HOST='::1' # why\nEMPTY=\nTEXT=\"two\nlines\"\n"
    expected = {"PORT": "9001", "GATEHOUSE_HOST": "::1", "EMPTY": "", "TEXT": "two\nlines"}
    assert read_env_file(written(tmp_path, content.encode())) == expected


def test_no_file_holds_no_values(tmp_path: Path) -> None:
    assert read_env_file(tmp_path / ".env") == {}
    assert read_env_file(tmp_path) == {}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"A=1\nPORT 8000\n", "line 2 is not of the form NAME=value"),
        (b"A=1\n\nPORT\n", "line 3 is not of the form NAME=value"),
        (b"=5\n", "line 1 is not of the form NAME=value"),
        (b"A='open\n", "line 1 is not of the form NAME=value"),
        (b"A=1\nB=\xff\n", "is not UTF-8 in line 2"),
    ],
)
def test_a_slip_is_named_with_its_file_and_line(tmp_path: Path, content: bytes, said: str) -> None:
    path = written(tmp_path, content)
    with pytest.raises(SettingsError) as refused:
        read_env_file(path)
    assert str(refused.value) == f"{path}: {said}"
