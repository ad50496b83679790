"""Print how many lines each platform's adapter has: ``python -m loadtests.adapter_lines``.

Code is what is neither blank nor a comment nor a docstring.
"""

from __future__ import annotations

import ast
import io
import tokenize
from pathlib import Path

from gateway.platforms import ADAPTERS

PLATFORMS = Path("gateway/platforms")
WORDLESS = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def code_lines(source: str) -> int:
    """Return the lines of code of a module."""
    lines = {
        line
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type not in WORDLESS
        for line in range(token.start[0], token.end[0] + 1)
    }
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)


def main() -> None:
    """Print a line for each adapter, with all files of its platform."""
    for name in sorted(ADAPTERS):
        sources = [path.read_text() for path in sorted(PLATFORMS.glob(f"{name}*.py"))]
        code, total = sum(map(code_lines, sources)), sum(len(source.splitlines()) for source in sources)
        print(f"{name:12} {code:4} of code, {total:4} in all, {len(sources)} files")


if __name__ == "__main__":
    main()
