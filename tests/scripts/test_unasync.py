"""What `scripts/unasync` makes of asynchronous code, by small inputs and over whole folders."""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "unasync"
OWN_NAMES = {"AsyncThing": "Thing"}


def load_script() -> ModuleType:
    loader = SourceFileLoader("unasync", str(SCRIPT))
    spec = importlib.util.spec_from_loader("unasync", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    writes_bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = writes_bytecode
    return module


unasync = load_script()


def converted(source: str) -> str:
    return str(unasync.synchronous(source, unasync.NAMES | OWN_NAMES))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("await f()", "f()"),
        ("await  f()", "f()"),
        ("x = await f(await g(), k=await h())", "x = f(g(), k=h())"),
        ("x = (await f()).y", "x = f().y"),
        ("x = (await f())[0]", "x = f()[0]"),
        ("x = (await f())(1)", "x = f()(1)"),
        ("x = ((await f()).y or 1) + 2", "x = (f().y or 1) + 2"),
        ("x = (await (await f()).g()).y", "x = f().g().y"),
        ("x = (await f()) ** 2", "x = (f()) ** 2"),
        ("x = f((await g()), 1)", "x = f((g()), 1)"),
        ("x = await (f or g)", "x = (f or g)"),
        ("x = -await f()", "x = -f()"),
        ("x = [await f(), *(await g())]", "x = [f(), *(g())]"),
        ("x = 1 if await f() else await g()", "x = 1 if f() else g()"),
        ("while chunk := await f():\n    pass", "while chunk := f():\n    pass"),
        ("assert 'ä…' and (await f()).y", "assert 'ä…' and f().y"),
        ("x = (\n    await f()\n)", "x = (\n    f()\n)"),
        ("x = (\n    await  # why\n    f()\n)", "x = (\n    # why\n    f()\n)"),
        ("x = (await f\n     .g()).y", "x = (f\n     .g()).y"),
        ("x = f(\n    await g(),  # first\n    2,\n)", "x = f(\n    g(),  # first\n    2,\n)"),
    ],
)
def test_await_goes_wherever_it_stands(source: str, expected: str) -> None:
    assert expected == converted(source)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("async def f():\n    pass", "def f():\n    pass"),
        ("@d\nasync  def f():\n    return await g()", "@d\ndef f():\n    return g()"),
        ("async with a() as b, c():\n    pass", "with a() as b, c():\n    pass"),
        (
            "async for a in b():\n    pass\nelse:\n    pass",
            "for a in b():\n    pass\nelse:\n    pass",
        ),
        ("x = [a async for a in b() if await c(a)]", "x = [a for a in b() if c(a)]"),
        ("x = {a: await c(a) for a in b}", "x = {a: c(a) for a in b}"),
        ("x = f(a async for b in c async for a in b)", "x = f(a for b in c for a in b)"),
        (
            "async def f() -> AsyncGenerator[int]:\n    yield await g()\n    await h()",
            "def f() -> Generator[int]:\n    yield g()\n    h()",
        ),
    ],
)
def test_asynchronous_statements_become_plain_ones(source: str, expected: str) -> None:
    assert expected == converted(source)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from a._async.b import AsyncThing", "from a._sync.b import Thing"),
        ("from a._async.b import AsyncThing as Other", "from a._sync.b import Thing as Other"),
        ("import a._async.b as c", "import a._sync.b as c"),
        ("class AsyncThing:\n    pass", "class Thing:\n    pass"),
        (
            "def f(x: AsyncThing[int] = y.AsyncThing()): ...",
            "def f(x: Thing[int] = y.Thing()): ...",
        ),
        ("x.aclose()\nf(aread=x.aread)", "x.close()\nf(read=x.read)"),
        ("def __aenter__(self): ...", "def __enter__(self): ..."),
        ("an_AsyncThing = is_async = awaited = answer = 1",) * 2,
    ],
)
def test_names_become_their_counterparts(source: str, expected: str) -> None:
    assert expected == converted(source)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (
            "x = 1  # an AsyncThing; await it, asynchronously",
            "x = 1  # an Thing; await it, asynchronously",
        ),
        ("x = f'AsyncThing({x.aread!r})'", "x = f'Thing({x.read!r})'"),
        ("x = 'await f()', 'AsyncThing'", "x = 'await f()', 'Thing'"),
        (
            '"""Prose: await the AsyncThing of `_async`."""',
            '"""Prose: await the Thing of `_sync`."""',
        ),
    ],
)
def test_strings_and_comments_change_by_whole_words(source: str, expected: str) -> None:
    assert expected == converted(source)


DOCUMENTED = '''
async def f():
    r"""Gives an AsyncThing; await it.

    Example:
        >>> async with await f() as thing:  # await it
        ...     (await thing.f("a\\n")).text
        ...
        'await thing'

        >>> await f()
    """
    text = """
    >>> await f()
    """
'''
PLAIN = '''
def f():
    r"""Gives an Thing; await it.

    Example:
        >>> with f() as thing:  # await it
        ...     thing.f("a\\n").text
        ...
        'await thing'

        >>> f()
    """
    text = """
    >>> await f()
    """
'''


def test_only_the_examples_of_a_docstring_change_as_code() -> None:
    assert PLAIN == converted(DOCUMENTED)


SORTED = (
    "from a import AsyncThing, Callable, Mapping\n\nasync def f(x: AsyncThing) -> Mapping: ...\n"
)


@pytest.mark.parametrize(
    "source",
    [
        SORTED,
        SORTED.replace("AsyncThing, Callable, Mapping", "Mapping, AsyncThing, Callable"),
        SORTED.replace("AsyncThing, Callable, Mapping", "(Callable,\n    AsyncThing, Mapping)"),
    ],
)
def test_the_order_and_layout_of_imports_do_not_matter(source: str, tmp_path: Path) -> None:
    _, target = sdk_of(tmp_path, thing="class AsyncThing: ...", f=source)

    assert 0 == unasync.main([], tmp_path)

    assert (
        "from a import Callable, Mapping, Thing\n\n\ndef f(x: Thing) -> Mapping: ...\n"
        == (target / "f.py").read_text().partition("\n")[2]
    )


def test_an_import_under_another_name_is_changed_where_it_is_made(tmp_path: Path) -> None:
    _, target = sdk_of(
        tmp_path,
        thing="class AsyncThing: ...",
        f="from a import AsyncThing as Other\n\nx = Other()",
    )

    assert 0 == unasync.main([], tmp_path)
    assert (target / "f.py").read_text().endswith("import Thing as Other\n\nx = Other()\n")


def sdk_of(folder: Path, **sources: str) -> tuple[Path, Path]:
    """A folder like the SDK's, with these modules."""
    (folder / "_async").mkdir()
    for name, text in sources.items():
        (folder / "_async" / f"{name}.py").write_text(text)
    return folder / "_async", folder / "_sync"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("x = 1\ny = AsyncStranger()", "line 2: AsyncStranger"),
        ("from x import AsyncStranger", "line 1: AsyncStranger"),
        ("import asyncstranger", "line 1: asyncstranger"),
        ("class A:\n    def __aiter__(self): ...", "line 2: __aiter__"),
        ("x = 1  # as AsyncStranger", "line 1: AsyncStranger"),
        ('"""\n\nAs AsyncStranger.\n"""', "line 3: AsyncStranger"),
        ('"""\n\n>>> f()\n>>> asyncstranger\n"""', "line 4: asyncstranger"),
    ],
)
def test_a_name_without_a_counterpart_is_an_error_that_names_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], source: str, said: str
) -> None:
    _, target = sdk_of(tmp_path, fine="x = 1", strange=source)

    assert 1 == unasync.main([], tmp_path)

    assert f"_async/strange.py: {said}" in capsys.readouterr().err
    assert not target.exists()


def test_an_await_in_a_string_is_an_error_that_says_where() -> None:
    with pytest.raises(unasync.NoCounterpartError, match="line 2: await inside of an f-string"):
        converted("async def f():\n    return f'{await g()}'")


def test_check_says_what_differs_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sources, target = sdk_of(tmp_path, kept="x = 1", changed="x = 1", gone="x = 1")
    unasync.main([], tmp_path)
    assert 0 == unasync.main(["--check"], tmp_path)
    (sources / "changed.py").write_text("x = 2")
    (sources / "new.py").write_text("x = 3")
    (sources / "gone.py").unlink()

    assert 1 == unasync.main(["--check"], tmp_path)

    said = capsys.readouterr().err
    assert ["changed.py", "gone.py", "new.py"] == [
        line.split()[0].removeprefix("_sync/") for line in said.splitlines()
    ]
    assert "x = 1" in (target / "changed.py").read_text()
    assert 0 == unasync.main([], tmp_path)
    assert ["changed.py", "kept.py", "new.py"] == sorted(path.name for path in target.iterdir())
    assert "x = 2" in (target / "changed.py").read_text()


def test_modules_written_by_hand_are_left_alone_and_their_classes_are_known(
    tmp_path: Path,
) -> None:
    (by_hand,) = unasync.BY_HAND
    sources, target = sdk_of(tmp_path, user="x = AsyncHandle()")
    (sources / by_hand).write_text("class AsyncHandle: ...")
    target.mkdir()
    (target / by_hand).write_text("class Handle: 'mine'")

    assert 0 == unasync.main([], tmp_path)

    assert 0 == unasync.main(["--check"], tmp_path)
    assert "class Handle: 'mine'" == (target / by_hand).read_text()
    assert "x = Handle()" in (target / "user.py").read_text()


def test_a_generated_file_says_so_first(tmp_path: Path) -> None:
    _, target = sdk_of(tmp_path, thing="x = 1")

    unasync.main([], tmp_path)

    first = (target / "thing.py").read_text().splitlines()[0]
    assert "# Generated by scripts/unasync from _async/thing.py. Do not edit." == first
