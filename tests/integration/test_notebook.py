"""A notebook's worth of cells in the `data` template, and forks of its live kernel."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Iterator

import pytest

import mitos
from mitos import DirectSandbox
from tests.integration.conftest import Server

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

CELL_TIMEOUT_S = 120
"""The first import of the packages is slow on a busy machine."""

FIRST_CELLS = (
    "import math, random, sys\nprint('ready'); print('aside', file=sys.stderr)",
    (
        "import numpy as np\nnp.random.seed(7); random.seed(7)\n"
        "data = np.arange(12).reshape(3, 4); data.sum()"
    ),
    "import pandas as pd\ndf = pd.DataFrame(data, columns=list('abcd')); df",
    (
        "import matplotlib.pyplot as plt\n"
        "fig, ax = plt.subplots(figsize=(4, 3)); ax.plot(df.a, df.d); None"
    ),
    "df['e'] = df.a * 2\ndisplay(df.describe())\nplt.hist(df.e); plt.show()\n'shown'",
    "async def total(): return int(df.e.sum())\nawait total()",
)


def test_the_packages_are_imported_before_the_first_cell(server: Server) -> None:
    with server.create("data") as sandbox:
        loaded = succeed(sandbox, "__import__('sys').modules.keys() & {'numpy', 'pandas'}").text
        names = succeed(sandbox, "[name for name in dir() if not name.startswith('_')]").text

    assert (loaded, names) in [("{'numpy', 'pandas'}", "[]"), ("{'pandas', 'numpy'}", "[]")]


def run(sandbox: DirectSandbox, code: str) -> mitos.Execution:
    return sandbox.run_code(code, timeout=CELL_TIMEOUT_S)


def succeed(sandbox: DirectSandbox, code: str) -> mitos.Execution:
    execution = run(sandbox, code)
    assert execution.error is None, execution.error
    return execution


def png_size(text: str | None) -> tuple[int, int]:
    """Width and height of a PNG in base64, after decoding all of its pixels."""
    assert text is not None
    data = base64.b64decode(text, validate=True)
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    chunks = list(png_chunks(data))
    assert [chunks[0][0], chunks[-1][0]] == [b"IHDR", b"IEND"]
    width, height, depth, colour, _, _, interlace = struct.unpack("!IIBBBBB", chunks[0][1])
    assert (depth, interlace) == (8, 0)
    channels = {2: 3, 6: 4}[colour]
    pixels = zlib.decompress(b"".join(content for kind, content in chunks if kind == b"IDAT"))
    assert len(pixels) == height * (1 + width * channels)
    return width, height


def png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of each chunk; fails when a checksum is wrong."""
    at = 8
    while at < len(data):
        (size,) = struct.unpack_from("!I", data, at)
        kind, content = data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        assert struct.unpack_from("!I", data, at + 8 + size) == (zlib.crc32(kind + content),)
        yield kind, content
        at += 12 + size


def test_a_notebook_and_three_forks_of_it(server: Server) -> None:
    with server.create("data") as notebook:
        one, two, three, four, five, six = (succeed(notebook, cell) for cell in FIRST_CELLS)

        assert ("".join(one.logs["stdout"]), "".join(one.logs["stderr"])) == ("ready\n", "aside\n")
        assert two.text == "66"
        assert "<table" in str(three.results[0].html)
        assert "10  11" in str(three.text)
        assert four.text is None
        width, height = png_size(four.results[0].png)
        assert 200 < width < 500
        assert 150 < height < 400
        assert ["<table" in str(result.html) for result in five.results] == [True, False, False]
        png_size(five.results[1].png)
        assert five.text == "'shown'"
        assert six.text == "24"

        seven = run(notebook, "step = 7\ndf['missing']")
        assert seven.error is not None
        assert seven.error.name == "KeyError"
        assert any("df['missing']" in line for line in seven.error.traceback)
        assert succeed(notebook, "step, int(df.e.sum()), int(data.sum())").text == "(7, 24, 66)"

        children = notebook.fork(3)
        try:
            continue_differently(notebook, children)
        finally:
            for child in children:
                child.terminate()


def continue_differently(notebook: DirectSandbox, children: list[DirectSandbox]) -> None:
    """Each child has the notebook's state, numbers of its own, and nothing of its siblings."""
    draw = "float(np.random.rand()), random.random(), float(np.random.default_rng().random())"
    drawn = [str(succeed(each, draw).text) for each in (notebook, *children)]
    assert len({part for text in drawn for part in text.strip("()").split(", ")}) == 12, drawn

    for factor, child in enumerate(children, start=2):
        succeed(child, f"df['f'] = df.e * {factor}")
        figure = succeed(child, "df.plot(y='f'); None").results[0]
        assert png_size(figure.png)[0] > 200
    sums = [succeed(child, "int(df.f.sum())").text for child in children]
    assert sums == ["48", "72", "96"]
    assert succeed(notebook, "'f' in df").text == "False"


def test_seeds_are_kept_and_hooks_run_when_the_notebook_says_so(sandbox: DirectSandbox) -> None:
    sandbox.run_code(
        "import mitos_kernel, os, random\n"
        "mitos_kernel.reseed_after_fork(False); random.seed(3); runs = []\n"
        "@mitos_kernel.after_fork\n"
        "def note(): runs.append(os.uname().nodename)\n"
    )

    children = sandbox.fork(2)
    try:
        drawn = [child.run_code("random.random()").text for child in children]
        runs = [child.run_code("runs").text for child in children]
    finally:
        for child in children:
            child.terminate()
    assert drawn == ["0.23796462709189137"] * 2
    assert runs == [str([child.id.lower()]) for child in children]
    assert sandbox.run_code("runs").text == "[]"
