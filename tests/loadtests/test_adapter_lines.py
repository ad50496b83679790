"""What counts as a line of an adapter's code."""

from __future__ import annotations

from loadtests.adapter_lines import code_lines


def test_blank_lines_comments_and_docstrings_are_no_code() -> None:
    words = '"""Words.\n\nMore."""\n\n# a comment\n'
    source = f'{words}x = 1  # why\n\n\ndef f() -> str:\n    """Do."""\n    return """a\n\nb"""\n'
    assert code_lines(source) == 5
