"""What the words of the fake guest's shell stand for: quotes, variables, sums and file patterns."""

from __future__ import annotations

import ast
import fnmatch
import operator
import posixpath
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from mitos.engine.fake.filesystem import FileSystem
from mitos.engine.fake.syntax import ShellSyntaxError, end_of_part

__all__ = ["Scope", "expand"]

_VARIABLE = re.compile(
    r"\$(?:([A-Za-z_]\w*|[?$!#@*0-9])|\{([A-Za-z_]\w*|[?$!#@*0-9])(?:(:?[-+=])(.*))?\})", re.DOTALL
)
_IDENTIFIER = re.compile(r"[A-Za-z_]\w*")
_SPECIAL = "\\'\"$`"
_WORD_END = 1 << 63

_OPERATIONS: Mapping[type[ast.AST], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: lambda a, b: int(a / b) if abs(a) < 1 << 50 else a // b,
    ast.Mod: lambda a, b: a - b * int(a / b),
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


@dataclass(frozen=True, slots=True)
class Scope:
    """What expansion looks things up in.

    Attributes:
        variables: by name, `?`, `$`, `!` and the arguments among them.
        files: for patterns.
        cwd: where relative patterns start.
        substitute: runs a script and returns its output.
    """

    variables: Mapping[str, str]
    files: FileSystem
    cwd: str
    substitute: Callable[[str], Awaitable[str]]


@dataclass(slots=True)
class _Piece:
    """A part of a word; what is not quoted is split and matched against files."""

    text: str
    is_quoted: bool


@dataclass(slots=True)
class _Word:
    pieces: list[_Piece] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.pieces)


async def expand(word: str, scope: Scope, *, split: bool) -> list[str]:
    """The strings a word stands for; exactly one unless `split`.

    Raises:
        ShellSyntaxError: a substitution that cannot be read.
    """
    whole = _Word(await _pieces(word, scope, is_quoted=False))
    if not split:
        return [whole.text]
    found = list[str]()
    for part in _split(whole.pieces):
        found += _matches(part, scope)
    return found


async def _pieces(word: str, scope: Scope, *, is_quoted: bool) -> list[_Piece]:
    pieces, position = list[_Piece](), 0
    while position < len(word):
        if word[position] not in _SPECIAL or (is_quoted and word[position] in "'\""):
            pieces.append(_Piece(word[position], is_quoted or word[position] not in "*?[~"))
            position += 1
            continue
        variable = _VARIABLE.match(word, position)
        end = end_of_part(word, position)
        if word[position] == "$" and variable and variable.group(1):
            end = variable.end()
        pieces += await _part(word[position:end], scope, is_quoted=is_quoted)
        position = end
    return pieces


async def _part(part: str, scope: Scope, *, is_quoted: bool) -> list[_Piece]:  # noqa: PLR0911
    if part.startswith("\\"):
        keeps = is_quoted and part[1:] not in ("$", "`", '"', "\\", "\n")
        text = part if keeps else part[1:].replace("\n", "")
        return [_Piece(text, is_quoted=True)]
    if part.startswith("'"):
        return [_Piece(part[1:-1], is_quoted=True)]
    if part.startswith('"'):
        return await _pieces(part[1:-1], scope, is_quoted=True) or [_Piece("", is_quoted=True)]
    if part.startswith("$(("):
        inner = "".join(p.text for p in await _pieces(part[3:-2], scope, is_quoted=True))
        return [_Piece(str(_sum(inner, scope.variables)), is_quoted=True)]
    if part.startswith("$("):
        return [_Piece((await scope.substitute(part[2:-1])).rstrip("\n"), is_quoted)]
    if part.startswith("`"):
        return [_Piece((await scope.substitute(part[1:-1])).rstrip("\n"), is_quoted)]
    variable = _VARIABLE.fullmatch(part)
    if variable is None:
        if part.startswith("${"):
            raise ShellSyntaxError("Bad substitution")
        return [_Piece(part, is_quoted)]
    return await _variable(variable, scope, is_quoted=is_quoted)


async def _variable(found: re.Match[str], scope: Scope, *, is_quoted: bool) -> list[_Piece]:
    value = scope.variables.get(found.group(1) or found.group(2))
    rule, other = found.group(3) or "", found.group(4) or ""
    is_set = value is not None and (value != "" or not rule.startswith(":"))
    if (rule.endswith(("-", "=")) and not is_set) or (rule.endswith("+") and is_set):
        return await _pieces(other, scope, is_quoted=is_quoted)
    return [_Piece(value or "" if not rule.endswith("+") else "", is_quoted)]


def _split(pieces: list[_Piece]) -> list[_Word]:
    words, current = list[_Word](), _Word()
    for piece in pieces:
        if piece.is_quoted:
            current.pieces.append(piece)
            continue
        first, *others = re.split(r"[ \t\n]+", piece.text)
        if first:
            current.pieces.append(_Piece(first, is_quoted=False))
        for other in others:
            if current.pieces:
                words.append(current)
            current = _Word([_Piece(other, is_quoted=False)] if other else [])
    return [*words, current] if current.pieces else words


def _matches(word: _Word, scope: Scope) -> list[str]:
    if word.pieces[0] == _Piece("~", is_quoted=False):
        word.pieces[0] = _Piece(scope.variables.get("HOME", "/root"), is_quoted=True)
    is_pattern = any(
        character in piece.text
        for piece in word.pieces
        if not piece.is_quoted
        for character in "*?["
    )
    if not is_pattern:
        return [word.text]
    folder, pattern = posixpath.split(word.text)
    try:
        entries = scope.files.entries(folder or ".", cwd=scope.cwd)
    except OSError:
        return [word.text]
    names = [posixpath.basename(path) for path, _ in entries]
    shown = [name for name in names if not name.startswith(".") or pattern.startswith(".")]
    found = [posixpath.join(folder, name) for name in fnmatch.filter(shown, pattern)]
    return found or [word.text]


def _sum(text: str, variables: Mapping[str, str]) -> int:
    def number(match: re.Match[str]) -> str:
        value = variables.get(match.group(), "").strip()
        return f"({int(value)})" if re.fullmatch(r"-?\d+", value) else "0"

    try:
        tree = ast.parse(_IDENTIFIER.sub(number, text).strip() or "0", mode="eval")
        value = int(_value(tree.body))
    except (ValueError, SyntaxError, ZeroDivisionError, RecursionError, MemoryError) as exc:
        raise ShellSyntaxError(f"arithmetic expression: {text.strip()!r}") from exc
    return (value + _WORD_END) % (2 * _WORD_END) - _WORD_END


def _value(node: ast.expr) -> int:
    match node:
        case ast.Constant(value=int(value)):
            return int(value)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _value(operand)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATIONS:
            return _OPERATIONS[type(op)](_value(left), _value(right))
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _OPERATIONS:
            return int(_OPERATIONS[type(op)](_value(left), _value(right)))
    raise ValueError("not a sum")
