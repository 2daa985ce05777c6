"""Cells of code, and what came of them."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Execution", "ExecutionError", "Result"]


@dataclass
class ExecutionError:
    """An exception that a cell raised; `traceback` is its formatted lines.

    Example:
        >>> sb.run_code("1/0").error.name
        'ZeroDivisionError'
    """

    name: str
    value: str
    traceback: list[str] = field(default_factory=list)


@dataclass
class Result:
    """One thing a cell showed: MIME types to payloads. Images are base64 text.

    Example:
        >>> sb.run_code("6 * 7").results[0].text
        '42'
    """

    data: dict[str, str] = field(default_factory=dict)
    is_main_result: bool = False

    @property
    def text(self) -> str | None:
        """`text/plain`."""
        return self.data.get("text/plain")

    @property
    def png(self) -> str | None:
        """`image/png`, base64."""
        return self.data.get("image/png")

    @property
    def svg(self) -> str | None:
        """`image/svg+xml`."""
        return self.data.get("image/svg+xml")

    @property
    def html(self) -> str | None:
        """`text/html`."""
        return self.data.get("text/html")

    @property
    def markdown(self) -> str | None:
        """`text/markdown`."""
        return self.data.get("text/markdown")

    @property
    def latex(self) -> str | None:
        """`text/latex`."""
        return self.data.get("text/latex")

    @property
    def json(self) -> str | None:
        """`application/json`, as text."""
        return self.data.get("application/json")

    @property
    def chart(self) -> str | None:
        """A Vega-Lite chart's JSON text, else a Vega chart's."""
        return self.data.get("application/vnd.vegalite.v5+json") or self.data.get(
            "application/vnd.vega.v5+json"
        )


def _empty_logs() -> dict[str, list[str]]:
    return {"stdout": [], "stderr": []}


@dataclass
class Execution:
    r"""A cell that ended.

    Attributes:
        text: the last expression's value as text, or None.
        logs: what was printed, in pieces, under `stdout` and `stderr`.
        results: everything shown, in order.
        error: the exception the cell raised, or None.

    Example:
        >>> found = sb.run_code("print('working'); 6 * 7")
        >>> found.text, found.logs["stdout"]
        ('42', ['working\n'])
    """

    text: str | None = None
    logs: dict[str, list[str]] = field(default_factory=_empty_logs)
    results: list[Result] = field(default_factory=list)
    error: ExecutionError | None = None
