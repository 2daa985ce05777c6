"""Cells of the fake guest: their events, their deadlines, and what a fork gets of their state."""

from __future__ import annotations

import asyncio
import json
import threading
import time

import pytest

from mitos.wire.link import KernelEvent, KernelEventKind
from tests.engine.fake.conftest import Bench, Sandbox


def result(events: list[KernelEvent]) -> str:
    """The value of a cell that must have succeeded."""
    assert KernelEvent(KernelEventKind.DONE, b"\0") == events[-1], events
    found = [e.payload for e in events if e.kind is KernelEventKind.RESULT]
    return str(json.loads(found[0])["text"]) if found else ""


def error(events: list[KernelEvent]) -> dict[str, object]:
    """The error of a cell that must have failed."""
    assert KernelEvent(KernelEventKind.DONE, b"\1") == events[-1], events
    (found,) = (e.payload for e in events if e.kind is KernelEventKind.ERROR)
    body: dict[str, object] = json.loads(found)
    return body


def said(events: list[KernelEvent], kind: KernelEventKind) -> str:
    return b"".join(e.payload for e in events if e.kind is kind).decode()


async def test_variables_live_from_cell_to_cell(sandbox: Sandbox) -> None:
    await sandbox.cell("x = 41")

    assert "42" == result(await sandbox.cell("x + 1"))
    assert "42" == result(await sandbox.cell("_"))
    assert "" == result(await sandbox.cell("x;"))
    assert "" == result(await sandbox.cell("None"))


async def test_output_is_the_machines_own(
    sandbox: Sandbox, capfd: pytest.CaptureFixture[str]
) -> None:
    code = "import sys\nprint('a', 1)\nsys.stdout.write('b')\nprint('c', file=sys.stderr)"

    events = await sandbox.cell(code)

    assert "a 1\nb" == said(events, KernelEventKind.STDOUT)
    assert "c\n" == said(events, KernelEventKind.STDERR)
    assert ("", "") == capfd.readouterr()


async def test_output_of_cells_at_the_same_time_does_not_mix(bench: Bench) -> None:
    one, other = await bench.boot(), await bench.boot()
    code = "import time\nfor _ in range(20):\n print({!r}); time.sleep(0.002)"

    first, second = await asyncio.gather(one.cell(code.format("1")), other.cell(code.format("2")))

    assert "1\n" * 20 == said(first, KernelEventKind.STDOUT)
    assert "2\n" * 20 == said(second, KernelEventKind.STDOUT)


async def test_output_comes_while_the_cell_runs(sandbox: Sandbox) -> None:
    code = "import time\nprint('first')\ntime.sleep(30)"
    async with sandbox.guest.run_code(code, timeout_s=60) as events:
        event = await asyncio.wait_for(anext(events), 2)

    assert b"first\n" == event.payload
    assert "2" == result(await sandbox.cell("1 + 1"))


async def test_a_flood_of_output_is_held_back_until_it_is_taken(sandbox: Sandbox) -> None:
    code = "n = 0\nwhile True:\n n += 1; print('x' * 60000)"
    async with sandbox.guest.run_code(code, timeout_s=60):
        await asyncio.sleep(1)

    assert int(result(await sandbox.cell("n"))) < 200


async def test_an_error_has_the_lines_of_the_cell_alone(sandbox: Sandbox) -> None:
    found = error(await sandbox.cell("def f():\n  return 1 / 0\nf()"))

    assert ("ZeroDivisionError", "division by zero") == (found["name"], found["value"])
    text = "\n".join(found["traceback"])  # type: ignore[arg-type]
    assert 'File "<cell 1>", line 2, in f' in text
    assert "kernel.py" not in text


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("1 +", "SyntaxError"),
        ("exit(3)", "SystemExit"),
        ("input()", "EOFError"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("f = lambda: f()\nf()", "RecursionError"),
        ("class X:\n def __repr__(self): raise ValueError('no')\nX()", "ValueError"),
    ],
)
async def test_a_cell_that_fails_leaves_the_kernel_alive(
    sandbox: Sandbox, code: str, name: str
) -> None:
    await sandbox.cell("kept = 1")

    assert name == error(await sandbox.cell(code))["name"]
    assert "1" == result(await sandbox.cell("kept"))


@pytest.mark.parametrize(
    "code",
    ["while True: pass", "import time; time.sleep(60)", "while True: print('x' * 9999)"],
)
async def test_a_deadline_ends_a_cell_and_keeps_its_state(sandbox: Sandbox, code: str) -> None:
    await sandbox.cell("kept = 1")
    began_at = time.monotonic()

    found = error(await sandbox.cell(code, timeout_s=0.3))

    assert "TimeoutError" == found["name"]
    assert time.monotonic() - began_at < 3
    assert "1" == result(await sandbox.cell("kept"))


async def test_a_cell_stuck_in_one_call_is_given_up_with_its_state(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mitos.engine.fake.kernel.GRACE_S", 0.2)
    stuck = threading.Event()
    await sandbox.cell("kept = 1")
    # A wait without lines, as a call of C code is.
    code = "import threading\n[t for t in threading.enumerate() if t.name == 'holder'][0].join()"
    holder = threading.Thread(target=stuck.wait, name="holder")
    holder.start()
    try:
        found = error(await sandbox.cell(code, timeout_s=0.1))
        after = error(await sandbox.cell("kept"))
    finally:
        stuck.set()
        holder.join()

    assert "state is lost" in str(found["value"])
    assert "NameError" == after["name"]


async def test_cells_run_one_at_a_time_in_order(sandbox: Sandbox) -> None:
    first = asyncio.ensure_future(sandbox.cell("import time; a = []; time.sleep(0.2); a.append(1)"))
    await asyncio.sleep(0.05)
    second = asyncio.ensure_future(sandbox.cell("a.append(2)"))
    await asyncio.gather(first, second)

    assert "[1, 2]" == result(await sandbox.cell("a"))


async def test_another_language_has_no_kernel(sandbox: Sandbox) -> None:
    async with sandbox.guest.run_code("1", language="cobol") as events:
        found = [event async for event in events]

    assert KernelEvent(KernelEventKind.DONE, b"\x7f") == found[-1]


async def test_cells_open_the_files_of_the_machine(sandbox: Sandbox) -> None:
    code = "with open('f', 'w') as f: f.write('ü')\nwith open('f', 'a') as f: f.write('!')\n"

    assert "'ü!'" == result(await sandbox.cell(code + "open('/workspace/f').read()"))
    assert "ü!" == await sandbox.out("cat f")
    assert "FileNotFoundError" == error(await sandbox.cell("open('nosuch')"))["name"]
    assert "'yes'" == result(await sandbox.cell("import os; os.environ['BOOTED']"))


async def test_a_fork_has_its_own_copy_of_the_variables(bench: Bench, sandbox: Sandbox) -> None:
    await sandbox.cell(
        "import math, time, dataclasses\nfrom time import sleep\n"
        "count = 0\n"
        "def tick():\n  global count\n  count += 1\n  return count\n"
        "def make(n):\n  def add():\n    nonlocal n\n    n += 1\n    return n\n  return add\n"
        "add = make(5)\n"
        "class Base:\n  def __init__(self, v): self.v = v\n"
        "class Thing(Base):\n"
        "  __slots__ = ('w',)\n"
        "  kind = 'thing'\n"
        "  def __init__(self, v):\n    super().__init__(v)\n    self.w = v\n"
        "  @property\n  def twice(self): return self.v * 2\n"
        "  @staticmethod\n  def plain(): return tick()\n"
        "  @classmethod\n  def named(cls): return cls.__name__\n"
        "thing = Thing([1])\n"
        "@dataclasses.dataclass\nclass Point:\n  x: int = 3\n"
        "point = Point()\n"
        "shared = [thing.v]\n"
    )

    child = await bench.fork(sandbox)
    await sandbox.cell("[tick() for _ in range(10)]; thing.v.append(2); add()")

    code = (
        "sleep(0)\n"
        "(tick(), count, add(), thing.v, thing.twice, thing.plain(), thing.named(), thing.w,"
        " shared[0] is thing.v, isinstance(thing, Base), point.x, Point(4).x, math.floor(2.5))"
    )
    expected = "(1, 2, 6, [1], [1, 1], 2, 'Thing', [1], True, True, 3, 4, 2)"
    assert "(1, 1" == result(await child.cell("(tick(), count)"))[:5]
    await child.cell("count = 0")
    assert expected.replace("(1, 2,", "(1, 1,") == result(await child.cell(code))
    assert "10" == result(await sandbox.cell("count"))


async def test_what_cannot_be_copied_is_missing_in_a_fork(bench: Bench, sandbox: Sandbox) -> None:
    await sandbox.cell("import threading\nlock = threading.Lock()\nkept = 1")

    child = await bench.fork(sandbox)

    assert "NameError" == error(await child.cell("lock"))["name"]
    assert "1" == result(await child.cell("kept"))
    assert "True" == result(await sandbox.cell("lock.acquire()"))


async def test_a_fork_while_a_cell_runs_catches_it_between_two_lines(
    bench: Bench, sandbox: Sandbox
) -> None:
    await sandbox.cell("a = b = 0")
    running = asyncio.ensure_future(sandbox.cell("while True:\n  a += 1; b += 1", timeout_s=1))
    await asyncio.sleep(0.2)

    first = await bench.fork(sandbox)
    await asyncio.sleep(0.1)
    second = await bench.fork(sandbox)

    counts = [int(result(await child.cell("a"))) for child in (first, second)]
    assert 0 < counts[0] < counts[1]
    assert "True" == result(await first.cell("a - b in (0, 1)"))
    await running


async def test_a_paused_machine_runs_no_line_of_a_cell(bench: Bench, sandbox: Sandbox) -> None:
    await sandbox.cell("n = 0")
    running = asyncio.ensure_future(sandbox.cell("while True:\n  n += 1", timeout_s=0.5))
    await asyncio.sleep(0.1)
    (machine,) = bench.engine.machines.values()

    await bench.engine.pause(sandbox.machine)
    async with machine.guest.saved():
        before = machine.guest.kernel.dump()
        await asyncio.sleep(0.1)
        after = machine.guest.kernel.dump()

    assert before == after
    await bench.engine.resume(sandbox.machine)
    await running
