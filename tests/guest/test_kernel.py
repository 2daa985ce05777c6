"""Code cells in the real agent and its Python kernel."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from mitos.wire.link import Fields, KernelEventKind, Operation, Status, Tag

from .client import AgentClient, Stream, identity_fields
from .conftest import Agent


def kinds(cell: Stream) -> list[str]:
    return [event.kind.name for event in cell.events]


def said(cell: Stream, kind: KernelEventKind = KernelEventKind.STDOUT) -> str:
    return b"".join(event.payload for event in cell.events if event.kind is kind).decode()


def results(cell: Stream) -> list[dict[str, Any]]:
    return [json.loads(e.payload) for e in cell.events if e.kind is KernelEventKind.RESULT]


def error(cell: Stream) -> dict[str, Any]:
    """The one error of a cell that failed."""
    (payload,) = [e.payload for e in cell.events if e.kind is KernelEventKind.ERROR]
    assert cell.events[-1].kind is KernelEventKind.DONE
    assert cell.events[-1].payload == b"\1"
    assert cell.fields.get_int(Tag.EXIT_CODE) == 1
    body: dict[str, Any] = json.loads(payload)
    return body


def text_of(client: AgentClient, code: str) -> str:
    cell = client.run_code(code)
    assert results(cell), cell.events
    text: str = results(cell)[0]["text"]
    return text


# ---- values ----


def test_the_last_expression_is_the_result(client: AgentClient) -> None:
    cell = client.run_code("import math; math.sqrt(144)")

    assert cell.status is Status.OK
    assert results(cell) == [{"text": "12.0", "data": {"text/plain": "12.0"}}]
    assert kinds(cell) == ["RESULT", "DONE"]
    assert cell.fields.get_int(Tag.EXIT_CODE) == 0


@pytest.mark.parametrize("code", ["", "None", "x = 1", "# nothing", "5;", "def f(): pass"])
def test_some_cells_have_no_result(client: AgentClient, code: str) -> None:
    assert kinds(client.run_code(code)) == ["DONE"]


def test_state_is_kept(client: AgentClient) -> None:
    client.run_code("x = 41")

    assert text_of(client, "x + 1") == "42"
    assert text_of(client, "_ + 1") == "43"


def test_it_runs_in_the_workspace_as_main(client: AgentClient) -> None:
    assert text_of(client, "import os; os.getcwd(), __name__") == "('/workspace', '__main__')"


def test_modules_beside_the_cell_can_be_imported(client: AgentClient) -> None:
    client.write_file("mine.py", b"value = 7")

    assert text_of(client, "import mine; mine.value") == "7"


def test_classes_of_a_cell_can_be_pickled(client: AgentClient) -> None:
    client.run_code("class Point:\n  def __init__(self): self.x = 3")

    assert text_of(client, "import pickle; pickle.loads(pickle.dumps(Point())).x") == "3"


def test_await_works_at_top_level(client: AgentClient) -> None:
    client.run_code("import asyncio\nasync def later(): await asyncio.sleep(0.01); return 'late'")

    assert text_of(client, "x = await later()\nawait later() + x") == "'latelate'"


def test_rich_forms_are_in_the_bundle(client: AgentClient) -> None:
    code = """
class Rich:
    def __repr__(self): return "plain"
    def _repr_html_(self): return "<b>html</b>"
    def _repr_markdown_(self): return "*md*", {"meta": 1}
    def _repr_svg_(self): return "<svg/>"
    def _repr_latex_(self): return "$x$"
    def _repr_png_(self): return bytes([137, 80])
    def _repr_json_(self): return {"a": 1}
    def _repr_jpeg_(self): raise RuntimeError
    def _repr_mimebundle_(self, include=None, exclude=None):
        return {"application/vnd.vegalite.v5+json": {"mark": "bar"}}, {}
Rich()"""
    (result,) = results(client.run_code(code))

    assert result["text"] == "plain"
    assert result["data"] == {
        "text/plain": "plain",
        "text/html": "<b>html</b>",
        "text/markdown": "*md*",
        "image/svg+xml": "<svg/>",
        "text/latex": "$x$",
        "image/png": "iVA=",
        "application/json": '{"a": 1}',
        "application/vnd.vegalite.v5+json": '{"mark": "bar"}',
    }


def test_objects_that_answer_anything_have_a_plain_form_only(client: AgentClient) -> None:
    (result,) = results(client.run_code("from unittest.mock import MagicMock; MagicMock()"))

    assert list(result["data"]) == ["text/plain"]


def test_display_shows_values_in_order(client: AgentClient) -> None:
    cell = client.run_code("print('a'); display(1, 'x'); print('b'); 2")

    assert [result["text"] for result in results(cell)] == ["", "", "2"]
    assert results(cell)[1]["data"] == {"text/plain": "'x'"}
    assert kinds(cell) == ["STDOUT", "RESULT", "RESULT", "STDOUT", "RESULT", "DONE"]


NO_PACKAGES = "import sys; sys.path[:] = [p for p in sys.path if not p.endswith('-packages')]"


def test_display_objects_need_no_ipython(client: AgentClient) -> None:
    client.run_code(NO_PACKAGES)
    code = """
from IPython.display import HTML, JSON, SVG, Image, Latex, Markdown, clear_output, display
open("dot.jpg", "wb").write(b"\\xff\\xd8\\xff\\xe0")
clear_output(wait=True)
display(HTML("<b>h</b>"), Markdown("*m*"), SVG("<svg/>"), Latex("$x$"), JSON({"a": [1]}))
display(Image(b"\\x89PNG"), Image("dot.jpg"), {"text/html": "raw"}, display_id="x")
display({"text/html": "raw"}, raw=True)
HTML("<i>last</i>")"""
    found = [result["data"] for result in results(client.run_code(code))]

    expected = [
        ("text/html", "<b>h</b>"),
        ("text/markdown", "*m*"),
        ("image/svg+xml", "<svg/>"),
        ("text/latex", "$x$"),
        ("application/json", '{"a": [1]}'),
        ("image/png", "iVBORw=="),
        ("image/jpeg", "/9j/4A=="),
    ]
    assert expected == [
        (mime, data[mime]) for data, (mime, _) in zip(found, expected, strict=False)
    ]
    assert found[7] == {"text/plain": "{'text/html': 'raw'}"}
    assert found[8] == {"text/html": "raw"}
    assert found[9]["text/html"] == "<i>last</i>"
    assert found[9]["text/plain"] == "<IPython.core.display.HTML object>"


def test_a_display_object_needs_its_content(client: AgentClient) -> None:
    client.run_code(NO_PACKAGES)
    cell = client.run_code("from IPython.display import Image; Image(url='http://example.com/a')")

    assert error(cell)["name"] == "ValueError"
    assert "is not fetched" in error(cell)["value"]


def test_an_installed_ipython_shows_through_the_kernel(client: AgentClient) -> None:
    code = """
import os
for name in ("IPython", "IPython/core"):
    os.makedirs(name); open(name + "/__init__.py", "w").close()
open("IPython/core/display_functions.py", "w").write("def display(*v): print('not through it')")
open("IPython/display.py", "w").write("from IPython.core.display_functions import *")
from IPython.display import display
display(5)"""
    cell = client.run_code(code)

    assert kinds(cell) == ["RESULT", "DONE"]
    assert results(cell)[0]["data"] == {"text/plain": "5"}


FAKE_MATPLOTLIB = """
import os
for path, text in {
    "matplotlib/__init__.py": "",
    "matplotlib/figure.py": '''
class Figure:
    def __init__(self, name): self.name = name
    def savefig(self, file, format, bbox_inches): file.write(b"png of " + self.name)
''',
    "matplotlib/pyplot.py": '''
from .figure import Figure
figures = {}
def figure(number): return figures.setdefault(number, Figure(b"%d" % number))
def get_fignums(): return sorted(figures)
def close(which): figures.clear()
def show(): print("the hook was not there")
''',
}.items():
    os.makedirs("matplotlib", exist_ok=True)
    open(path, "w").write(text)
"""


def test_figures_are_shown_at_the_end_of_the_cell(client: AgentClient) -> None:
    client.run_code(FAKE_MATPLOTLIB)
    cell = client.run_code("import matplotlib.pyplot as plt; plt.figure(1); plt.figure(2); None")

    assert [r["data"]["image/png"] for r in results(cell)] == ["cG5nIG9mIDE=", "cG5nIG9mIDI="]
    assert [r["text"] for r in results(cell)] == ["", ""]
    assert kinds(client.run_code("None")) == ["DONE"], "each figure is shown once"


def test_show_shows_figures_at_once(client: AgentClient) -> None:
    client.run_code(FAKE_MATPLOTLIB)
    cell = client.run_code(
        "import matplotlib.pyplot as plt; plt.figure(1); plt.show(); print('after')"
    )

    assert kinds(cell) == ["RESULT", "STDOUT", "DONE"]


def test_a_figure_as_the_value_is_shown_once(client: AgentClient) -> None:
    client.run_code(FAKE_MATPLOTLIB)
    (result,) = results(client.run_code("import matplotlib.pyplot as plt; plt.figure(1)"))

    assert result["text"].startswith("<matplotlib.figure.Figure")
    assert result["data"]["image/png"] == "cG5nIG9mIDE="


# ---- output ----


def test_output_comes_in_order(client: AgentClient) -> None:
    code = """
import os, subprocess, sys
print("one"); os.system("echo two"); print("three", file=sys.stderr)
subprocess.run(["sh", "-c", "echo four; echo five >&2"]); print("six", flush=True)
subprocess.run(["echo", "seven"], stdout=sys.stdout); sys.stdout.buffer.write(b"eight\\n")
"""
    cell = client.run_code(code)

    assert said(cell) == "one\ntwo\nfour\nsix\nseven\neight\n"
    assert said(cell, KernelEventKind.STDERR) == "three\nfive\n"
    assert said(cell).index("two") < said(cell).index("six")


def test_output_comes_while_the_cell_runs(client: AgentClient) -> None:
    cell = client.start_code("import time; print('early'); time.sleep(60)")
    client.wait_until(lambda: b"early" in cell.stdout)
    client.cancel(cell)

    assert client.finish(cell).status is Status.CANCELED


def test_much_output_arrives_whole(client: AgentClient) -> None:
    cell = client.run_code("for i in range(100000): print(i)")

    assert said(cell) == "".join(f"{i}\n" for i in range(100000))
    assert len(cell.events) < 2000, "small writes are joined"


def test_a_big_value_arrives_whole(client: AgentClient) -> None:
    assert len(text_of(client, "'x' * 20_000_000")) == 20_000_002


def test_an_output_that_is_too_large_is_an_error(client: AgentClient) -> None:
    cell = client.run_code("class Big:\n def __repr__(self): return 'x' * (60 << 20)\nBig()")

    assert error(cell)["name"] == "KernelOutputTooLarge"
    assert text_of(client, "1 + 1") == "2"


def test_text_that_no_wire_can_carry_is_escaped(client: AgentClient) -> None:
    cell = client.run_code("print('\\ud800'); type('T', (), {'__repr__': lambda s: '\\ud801'})()")

    assert said(cell) == "\\ud800\n"
    assert results(cell)[0]["text"] == "\\ud801"


# ---- errors ----


def test_a_traceback_shows_the_user_s_lines_only(client: AgentClient) -> None:
    cell = client.run_code("def f():\n    return 1 / 0  # here\nf()")

    body = error(cell)
    assert (body["name"], body["value"]) == ("ZeroDivisionError", "division by zero")
    assert body["traceback"][0] == "Traceback (most recent call last):"
    assert any("return 1 / 0  # here" in line for line in body["traceback"])
    assert "/opt/mitos" not in "\n".join(body["traceback"])


def test_chained_tracebacks_hide_the_kernel_too(client: AgentClient) -> None:
    code = "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    raise ValueError('v') from e"
    body = error(client.run_code(code))

    assert body["name"] == "ValueError"
    assert any("direct cause" in line for line in body["traceback"])
    assert "/opt/mitos" not in "\n".join(body["traceback"])


def test_a_syntax_error_shows_its_place(client: AgentClient) -> None:
    body = error(client.run_code("x = 1\ny = = 2"))

    assert body["name"] == "SyntaxError"
    assert any("y = = 2" in line for line in body["traceback"])


@pytest.mark.parametrize("code", ["raise SystemExit(3)", "exit()", "import sys; sys.exit('bye')"])
def test_exit_ends_the_cell_only(client: AgentClient, code: str) -> None:
    client.run_code("kept = 5")

    assert error(client.run_code(code))["name"] == "SystemExit"
    assert text_of(client, "kept") == "5"


def test_input_fails_at_once(client: AgentClient) -> None:
    assert error(client.run_code("input('name? ')"))["name"] == "EOFError"
    assert error(client.run_code("import sys; sys.stdin.readline()"))["name"] == "EOFError"


def test_a_value_that_cannot_be_shown_is_an_error(client: AgentClient) -> None:
    cell = client.run_code("class Bad:\n def __repr__(self): raise ValueError('no')\nBad()")

    assert error(cell)["name"] == "ValueError"


def test_an_error_that_cannot_be_shown_is_an_error(client: AgentClient) -> None:
    cell = client.run_code("class Bad(Exception):\n def __str__(self): raise ValueError\nraise Bad")

    assert error(cell)["name"] == "Bad"


def test_deep_recursion_is_an_error(client: AgentClient) -> None:
    assert error(client.run_code("def f(): f()\nf()"))["name"] == "RecursionError"


# ---- processes of a cell ----


def test_a_forked_child_leaves_the_kernel_alone(client: AgentClient) -> None:
    code = """
import os
pid = os.fork()
if pid == 0:
    print("from the child")
    raise ValueError("the child fails")
_, status = os.waitpid(pid, 0)
os.waitstatus_to_exitcode(status)"""
    cell = client.run_code(code)

    assert results(cell)[0]["text"] == "1"
    assert said(cell) == "from the child\n"
    assert "the child fails" in said(cell, KernelEventKind.STDERR)
    assert text_of(client, "pid > 0") == "True"


def test_multiprocessing_works(client: AgentClient) -> None:
    code = "import multiprocessing as m\ndef f(x): print(x); return x * x\n"
    cell = client.run_code(
        code + "with m.get_context('fork').Pool(2) as p: r = p.map(f, [1, 2])\nr"
    )

    assert results(cell), cell.events
    assert results(cell)[0]["text"] == "[1, 4]"
    assert sorted(said(cell).split()) == ["1", "2"]


def test_children_do_not_inherit_the_link(client: AgentClient) -> None:
    cell = client.run_code("import os; os.system('ls -l /proc/self/fd')")

    assert "socket" not in said(cell)


# ---- time ----


@pytest.mark.parametrize(
    "code",
    [
        "import time; time.sleep(60)",
        "while True: pass",
        "import os; os.system('sleep 60')",
        "import subprocess; subprocess.run(['sleep', '60'])",
        "import asyncio; await asyncio.sleep(60)",
        "import threading; threading.Event().wait()",
        "try:\n    while True: pass\nexcept KeyboardInterrupt:\n    pass",
    ],
)
def test_at_the_deadline_the_cell_ends_and_the_state_stays(client: AgentClient, code: str) -> None:
    client.run_code("kept = 'state'")
    began = time.monotonic()
    cell = client.run_code(f"print('begun')\n{code}", timeout_ms=500)

    assert error(cell)["name"] == "TimeoutError"
    assert said(cell) == "begun\n"
    assert time.monotonic() - began < 3
    assert text_of(client, "kept") == "'state'"


def test_a_cell_that_ignores_its_deadline_loses_the_kernel(client: AgentClient) -> None:
    client.run_code("kept = 'state'")
    code = "import time\nwhile True:\n  try: time.sleep(60)\n  except KeyboardInterrupt: pass"
    began = time.monotonic()
    body = error(client.run_code(code, timeout_ms=300))

    assert body["name"] == "TimeoutError"
    assert "state is lost" in body["value"]
    assert 3 < time.monotonic() - began < 8
    assert text_of(client, "'kept' in globals()") == "False"


def test_a_command_s_interrupt_is_no_timeout(client: AgentClient) -> None:
    code = "import os, signal; os.kill(os.getpid(), signal.SIGINT)"

    assert error(client.run_code(code, timeout_ms=60_000))["name"] == "KeyboardInterrupt"


def test_a_canceled_cell_ends_and_the_state_stays(client: AgentClient) -> None:
    client.run_code("kept = 'state'")
    cell = client.start_code("print('begun')\nwhile True: pass")
    client.wait_until(lambda: b"begun" in cell.stdout)
    client.cancel(cell)

    assert client.finish(cell).status is Status.CANCELED
    assert text_of(client, "kept") == "'state'"


def test_a_cell_canceled_before_it_began_ends_and_the_state_stays(client: AgentClient) -> None:
    """The kernel drops an interrupt that comes while it reads the cell."""
    client.run_code("kept = 'state'")
    for _ in range(20):
        cell = client.start_code("while True: pass")
        client.cancel(cell)
        assert client.finish(cell).status is Status.CANCELED

    assert text_of(client, "kept") == "'state'"


def test_a_deadline_before_the_cell_began_ends_it_and_the_state_stays(client: AgentClient) -> None:
    client.run_code("kept = 'state'")
    for _ in range(5):
        assert "state is kept" in error(client.run_code("while True: pass", timeout_ms=1))["value"]

    assert text_of(client, "kept") == "'state'"


def test_cells_run_one_at_a_time_in_order(client: AgentClient) -> None:
    first = client.start_code("import time; order = [1]; time.sleep(0.3)")
    second = client.start_code("order.append(2)")
    dropped = client.start_code("order.append('dropped')")
    third = client.start_code("order.append(3); order")
    client.cancel(dropped)

    assert client.finish(dropped).status is Status.CANCELED
    client.finish(third)
    assert first.closed
    assert second.closed
    assert results(third)[0]["text"] == "[1, 2, 3]"


def test_a_slow_reader_holds_back_only_its_cell(client: AgentClient) -> None:
    client.gives_credit = False
    cell = client.start_code("kept = 'state'; print('x' * 1_000_000)", timeout_ms=500)
    client.wait_until(lambda: len(cell.stdout) == 262144)
    assert client.shell("echo other").stdout == b"other\n"
    time.sleep(4.5)
    client.gives_credit = True
    client.give_credit(cell)

    client.finish(cell)
    assert said(cell).rstrip() == "x" * 1_000_000
    assert error(cell)["name"] == "TimeoutError"
    assert text_of(client, "kept") == "'state'"


# ---- the kernel's own end ----


def test_a_kernel_that_dies_in_a_cell_is_an_error(client: AgentClient) -> None:
    client.run_code("x = 1")
    cell = client.run_code("import os; print('last words'); os._exit(9)")

    assert error(cell)["name"] == "KernelDied"
    again = client.run_code("'x' in globals()")
    assert results(again)[0]["text"] == "False"
    assert said(again, KernelEventKind.STDERR) == "", "the loss was told already"


def test_a_kernel_that_dies_between_cells_is_told_once(client: AgentClient) -> None:
    client.run_code("x = 1")
    client.shell("pkill -9 -f '[/]opt/mitos/kernels/python'; sleep 0.1")
    first, second = client.run_code("'x' in globals()"), client.run_code("2")

    assert "state is lost" in said(first, KernelEventKind.STDERR)
    assert results(first)[0]["text"] == "False"
    assert said(second, KernelEventKind.STDERR) == ""


def test_a_kernel_that_dies_in_mid_message_leaves_a_readable_stream(client: AgentClient) -> None:
    client.gives_credit = False
    cell = client.start_code("import threading, os, time\n'y' * 5_000_000")
    client.wait_until(lambda: len(cell.stdout) == 262144)
    client.shell("pkill -9 -f '[/]opt/mitos/kernels/python'")
    client.gives_credit = True
    client.give_credit(cell)

    client.finish(cell)
    assert kinds(cell) == ["RESULT", "ERROR", "DONE"]
    assert json.loads(cell.events[1].payload)["name"] == "KernelDied"


def test_a_language_without_a_kernel_is_unavailable(client: AgentClient) -> None:
    assert client.run_code("1", language="cobol").status is Status.UNAVAILABLE


@pytest.mark.parametrize("language", ["", "../agent", "a/b", "x" * 65, "p\u00e9"])
def test_an_invalid_language_is_refused(client: AgentClient, language: str) -> None:
    assert client.run_code("1", language=language).status is Status.INVALID


def test_code_that_is_too_large_is_refused(client: AgentClient) -> None:
    stream = client.open(Operation.RUN_CODE, Fields().text(Tag.LANGUAGE, "python"))
    client.write(stream, b"#" * ((32 << 20) + 1))

    assert client.finish(stream).status is Status.INVALID


def test_large_code_runs(client: AgentClient) -> None:
    assert text_of(client, "x = '" + "y" * 3_000_000 + "'\nlen(x)") == "3000000"


# ---- identity ----


def test_a_kernel_is_reseeded(client: AgentClient) -> None:
    client.run_code("import random, ssl, uuid, tempfile; tempfile.mktemp(); random.seed(1)")
    client.identify()
    first = text_of(client, "random.random()")
    client.run_code("random.seed(1)")
    client.identify()

    assert text_of(client, "random.random()") != first
    client.run_code("random.seed(1)")
    assert text_of(client, "random.random()") == "0.13436424411240122"


def test_numpy_is_reseeded_when_it_is_loaded(client: AgentClient) -> None:
    fake = (
        "import sys, types; seeds = []; n = types.ModuleType('numpy.random'); n.seed = seeds.append"
    )
    client.run_code(f"{fake}; sys.modules['numpy.random'] = n")
    client.identify()

    assert text_of(client, "len(seeds), len(seeds[0])") == "(1, 12)"
    assert text_of(client, "all(0 <= part < 2 ** 32 for part in seeds[0])") == "True"


def test_torch_is_reseeded_when_it_is_loaded(client: AgentClient) -> None:
    fake = (
        "import sys, types; seeds = []; t = types.ModuleType('torch'); t.manual_seed = seeds.append"
    )
    client.run_code(f"{fake}; sys.modules['torch'] = t")
    client.identify()
    client.identify(forked=True)

    assert text_of(client, "len(set(seeds)), all(0 <= s < 2 ** 63 for s in seeds)") == "(2, True)"


def test_hooks_run_once_after_a_fork(client: AgentClient) -> None:
    client.run_code(
        "import mitos_kernel; seen = []; mitos_kernel.after_fork(lambda: seen.append(1))"
    )

    assert client.identify().status is Status.OK
    assert text_of(client, "seen") == "[]", "an identity without a fork is none"
    assert client.identify(forked=True).status is Status.OK
    assert text_of(client, "seen") == "[1]"
    assert text_of(client, "seen") == "[1]"


def test_a_hook_that_fails_is_shown_by_the_next_cell(client: AgentClient) -> None:
    code = "import mitos_kernel; seen = []\n@mitos_kernel.after_fork\ndef fails(): 1 / 0\n"
    client.run_code(code + "mitos_kernel.after_fork(lambda: seen.append(1))")
    client.identify(forked=True)
    first, second = client.run_code("seen"), client.run_code("seen")

    assert "fails failed" in said(first, KernelEventKind.STDERR)
    assert "ZeroDivisionError" in said(first, KernelEventKind.STDERR)
    assert results(first)[0]["text"] == "[1]"
    assert said(second, KernelEventKind.STDERR) == ""


@pytest.mark.parametrize(
    "opt_out",
    [
        "import mitos_kernel; mitos_kernel.reseed_after_fork(False)",
        "import os; os.environ['MITOS_RESEED_AFTER_FORK'] = '0'",
    ],
)
def test_a_kernel_keeps_its_seeds_when_it_is_told_to(client: AgentClient, opt_out: str) -> None:
    client.run_code(f"import random; random.seed(1)\n{opt_out}")
    client.identify(forked=True)

    assert text_of(client, "random.random()") == "0.13436424411240122"


def test_a_busy_kernel_is_reseeded_before_its_next_cell(client: AgentClient) -> None:
    client.run_code("import random, time")
    cell = client.start_code("random.seed(1); time.sleep(1)")
    time.sleep(0.2)
    began = time.monotonic()

    assert client.identify().status is Status.OK
    assert time.monotonic() - began < 0.5
    client.finish(cell)
    assert text_of(client, "random.random()") != "0.13436424411240122"


def test_a_live_kernel_gets_changed_variables(client: AgentClient) -> None:
    client.run_code("import os")
    client.identify(identity_fields(env={"NEW": "a=b"}))

    assert text_of(client, "os.environ['NEW']") == "'a=b'"


@pytest.mark.timeout(40)
def test_a_kernel_that_does_not_confirm_fails_the_identity(
    agent: Agent, client: AgentClient
) -> None:
    client.run_code("1")
    client.shell("pkill -STOP -f '[/]opt/mitos/kernels/python'")

    began = time.monotonic()
    assert client.identify().status is Status.FAILED
    assert 4 < time.monotonic() - began < 9
