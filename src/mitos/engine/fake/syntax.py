"""The fake guest's shell language: text in, a tree out. `shell` runs the tree.

A part of the POSIX shell: lists, pipelines, redirections, groups, `if`, `while`, `until`, `for` and
functions. Words stay raw text; `expansion` gives them their value when they are used. Trees are
plain data, so a snapshot can hold a running script.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

__all__ = [
    "Branch",
    "Command",
    "For",
    "Function",
    "Group",
    "If",
    "Loop",
    "Node",
    "Pipeline",
    "Redirect",
    "ShellSyntaxError",
    "Simple",
    "Statement",
    "end_of_part",
    "parse",
]

DEPTH_LIMIT = 50  # nested groups; far below Python's own limit
_OPERATOR = re.compile(r"\d?(?:>>|>&|<&|>|<)|&&|\|\||[;&|()\n]")
_PLAIN = re.compile(r"[^\s;&|()<>'\"\\$`]+")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_SEPARATORS = (";", "&", "\n")
_CLOSING = ("then", "elif", "else", "fi", "do", "done", "}", ")")


class ShellSyntaxError(Exception):
    """The text is not a script of this shell."""


@dataclass(frozen=True, slots=True)
class Redirect:
    """`descriptor operator target`, for example `2 >& 1`."""

    descriptor: int
    operator: str
    target: str


@dataclass(frozen=True, slots=True)
class Simple:
    """Assignments, a program and its arguments."""

    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """`{ … }`, or `( … )` in a process of its own."""

    body: tuple[Statement, ...]
    is_subshell: bool


@dataclass(frozen=True, slots=True)
class Loop:
    """`while` or `until`."""

    condition: tuple[Statement, ...]
    body: tuple[Statement, ...]
    is_until: bool


@dataclass(frozen=True, slots=True)
class For:
    """`for name in words`."""

    name: str
    words: tuple[str, ...]
    body: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class Branch:
    """`if` or `elif` with what it guards."""

    condition: tuple[Statement, ...]
    body: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class If:
    """The first branch whose condition succeeds, or the last body."""

    branches: tuple[Branch, ...]
    otherwise: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class Function:
    """`name() body`."""

    name: str
    body: Command


Node = Simple | Group | Loop | For | If | Function


@dataclass(frozen=True, slots=True)
class Command:
    """A node with its redirections."""

    node: Node
    redirects: tuple[Redirect, ...] = ()


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Commands joined by `|`; `operator` says when it runs after the one before it."""

    commands: tuple[Command, ...]
    is_negated: bool = False
    operator: str = ""


@dataclass(frozen=True, slots=True)
class Statement:
    """Pipelines joined by `&&` and `||`, perhaps in the background."""

    pipelines: tuple[Pipeline, ...]
    is_background: bool = False


def parse(text: str) -> list[Statement]:
    """The statements of a script.

    Raises:
        ShellSyntaxError: with the words a shell would use.
    """
    parser = _Parser(_tokens(text))
    statements = parser.statements()
    if parser.next:
        raise _unexpected(parser.next)
    return list(statements)


def end_of_part(text: str, start: int) -> int:
    """Where the quoted or expanded part of a word that begins at `start` ends.

    Raises:
        ShellSyntaxError: it does not end.
    """
    opening = text[start]
    if opening == "\\":
        return min(start + 2, len(text))
    if opening in "'`":
        return _index(text, opening, start + 1) + 1
    if opening == '"':
        return _end_of_nested(text, start + 1, '"')
    if text.startswith("$(", start):
        return _end_of_nested(text, start + 2, ")")
    if text.startswith("${", start):
        return _end_of_nested(text, start + 2, "}")
    return start + 1


def _index(text: str, wanted: str, start: int) -> int:
    found = text.find(wanted, start)
    if found < 0:
        raise ShellSyntaxError("Syntax error: Unterminated quoted string")
    return found


def _end_of_nested(text: str, position: int, closing: str) -> int:
    depth = 1
    while position < len(text):
        character = text[position]
        if character == closing:
            depth -= 1
            position += 1
            if depth == 0:
                return position
        elif character == "(" and closing == ")":
            depth += 1
            position += 1
        elif character in "\\`$" or (character in "'\"" and closing != '"'):
            position = end_of_part(text, position)
        else:
            position += 1
    raise ShellSyntaxError("Syntax error: Unterminated quoted string")


def _tokens(text: str) -> list[str]:
    tokens, position = list[str](), 0
    while position < len(text):
        if text[position] in " \t\r" or text.startswith("\\\n", position):
            position += 1 + (text[position] == "\\")
        elif text[position] == "#":
            position = (text + "\n").index("\n", position)
        elif operator := _OPERATOR.match(text, position):
            tokens.append(operator.group())
            position = operator.end()
        else:
            end = _end_of_word(text, position)
            tokens.append(text[position:end])
            position = end
    return tokens


def _end_of_word(text: str, position: int) -> int:
    while position < len(text) and text[position] not in " \t\r\n;&|()<>":
        plain = _PLAIN.match(text, position)
        position = plain.end() if plain else end_of_part(text, position)
    return position


def _unexpected(found: str) -> ShellSyntaxError:
    if not found:
        return ShellSyntaxError("Syntax error: end of file unexpected")
    shown = "newline" if found == "\n" else f'"{found}"'
    return ShellSyntaxError(f"Syntax error: {shown} unexpected")


class _Parser:
    """Recursive descent; `next` is the next token, empty at the end."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens
        self._position = 0
        self._depth = 0
        self._compounds: dict[str, Callable[[], Node]] = {
            "{": self._braces,
            "(": self._parentheses,
            "if": self._if,
            "while": self._loop,
            "until": self._loop,
            "for": self._for,
        }

    @property
    def next(self) -> str:
        """The next token."""
        return self._tokens[self._position] if self._position < len(self._tokens) else ""

    def statements(self) -> tuple[Statement, ...]:
        """A list, up to a word that closes it."""
        self._depth += 1
        if self._depth > DEPTH_LIMIT:
            raise ShellSyntaxError("Syntax error: nested too deep")
        found = list[Statement]()
        self._skip_newlines()
        while self.next and self.next not in _CLOSING:
            pipelines = self._pipelines()
            found.append(Statement(pipelines, is_background=self.next == "&"))
            if self.next not in _SEPARATORS:
                break
            self._take()
            self._skip_newlines()
        self._depth -= 1
        return tuple(found)

    def _pipelines(self) -> tuple[Pipeline, ...]:
        found, operator = list[Pipeline](), ""
        while True:
            is_negated = self.next == "!"
            if is_negated:
                self._take()
            commands = [self._command()]
            while self.next == "|":
                self._take()
                self._skip_newlines()
                commands.append(self._command())
            found.append(Pipeline(tuple(commands), is_negated, operator))
            if self.next not in ("&&", "||"):
                return tuple(found)
            operator = self._take()
            self._skip_newlines()

    def _command(self) -> Command:
        redirects = list[Redirect]()
        if make := self._compounds.get(self.next):
            node = make()
        elif not self._is_word() and not self._is_redirect():
            raise _unexpected(self.next)
        elif self._tokens[self._position + 1 : self._position + 3] == ["(", ")"]:
            node = self._function()
        else:
            words = list[str]()
            while self._is_word() or self._is_redirect():
                if self._is_redirect():
                    redirects.append(self._redirect())
                else:
                    words.append(self._take())
            node = Simple(tuple(words))
        while self._is_redirect():
            redirects.append(self._redirect())
        return Command(node, tuple(redirects))

    def _redirect(self) -> Redirect:
        operator = self._take()
        default = 0 if "<" in operator else 1
        descriptor = int(operator[0]) if operator[0].isdigit() else default
        return Redirect(descriptor, operator.lstrip("0123456789"), self._word())

    def _braces(self) -> Node:
        self._expect("{")
        body = self.statements()
        self._expect("}")
        return Group(body, is_subshell=False)

    def _parentheses(self) -> Node:
        self._expect("(")
        body = self.statements()
        self._expect(")")
        return Group(body, is_subshell=True)

    def _loop(self) -> Node:
        is_until = self._take() == "until"
        condition = self.statements()
        return Loop(condition, self._body(), is_until)

    def _for(self) -> Node:
        self._expect("for")
        name, words = self._word(), list[str]()
        if not _NAME.match(name):
            raise ShellSyntaxError("Syntax error: Bad for loop variable")
        self._skip_newlines()
        self._expect("in")
        while self._is_word():
            words.append(self._take())
        if self.next in (";", "\n"):
            self._take()
        self._skip_newlines()
        return For(name, tuple(words), self._body())

    def _if(self) -> Node:
        branches, otherwise = list[Branch](), tuple[Statement, ...]()
        while self.next in ("if", "elif"):
            self._take()
            condition = self.statements()
            self._expect("then")
            branches.append(Branch(condition, self.statements()))
        if self.next == "else":
            self._take()
            otherwise = self.statements()
        self._expect("fi")
        return If(tuple(branches), otherwise)

    def _function(self) -> Node:
        name = self._take()
        self._expect("(")
        self._expect(")")
        self._skip_newlines()
        return Function(name, self._command())

    def _body(self) -> tuple[Statement, ...]:
        self._expect("do")
        body = self.statements()
        self._expect("done")
        return body

    def _is_redirect(self) -> bool:
        return self.next.lstrip("0123456789") in (">", ">>", "<", ">&", "<&")

    def _is_word(self) -> bool:
        return bool(self.next) and not _OPERATOR.fullmatch(self.next)

    def _word(self) -> str:
        if not self._is_word():
            raise _unexpected(self.next)
        return self._take()

    def _expect(self, wanted: str) -> None:
        if self.next != wanted:
            raise _unexpected(self.next)
        self._take()

    def _take(self) -> str:
        taken = self.next
        self._position += 1
        return taken

    def _skip_newlines(self) -> None:
        while self.next == "\n":
            self._take()
