"""Counts lines of code: those with a token of Python that is no comment and no docstring."""

import ast
import io
import tokenize
from pathlib import Path

HERE = Path(__file__).parent
NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def count(source: str) -> int:
    """How many lines of a source are code."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)


def figures() -> dict[str, int]:
    """Of each of the two applications."""
    return {name: count((HERE / f"{name}.py").read_text()) for name in ("with_velocity_ws", "with_socketio")}


if __name__ == "__main__":
    for name, lines in figures().items():
        print(f"{lines:4} {name}.py")  # noqa: T201
