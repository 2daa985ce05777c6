"""The command itself: what it offers, and what it loads to say so."""

from __future__ import annotations

import subprocess
import sys


def run_python(program: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30
    ).stdout


def test_help_names_every_command_and_loads_none() -> None:
    program = """
import sys
from mitos.cli import main
sys.argv = ["mitos", "--help"]
try:
    main.main()
except SystemExit as ended:
    assert not ended.code
print(*sys.modules)
"""

    *shown, loaded = run_python(program).splitlines()

    text = "\n".join(shown)
    for name in ("doctor", "download", "fork", "run", "sandbox", "serve", "template", "upload"):
        assert f"\n  {name} " in text
    assert not {"rich", "httpx", "starlette", "mitos.cli.serve"} & set(loaded.split())


def test_every_command_is_where_the_table_says() -> None:
    program = """
from mitos.cli.main import _COMMANDS, _mitos
import click
for name, (_, summary) in _COMMANDS.items():
    command = _mitos.get_command(click.Context(_mitos), name)
    assert command.name == name, name
    assert command.help.split(".")[0].startswith(summary.split()[0]), name
    assert summary.endswith(".")
"""

    run_python(program)
