"""A program forks the computer it runs in: every child has its memory, and luck of its own.

    MITOS_BASE_URL=http://127.0.0.1:8080 python examples/04_fork_inside.py

The program below runs inside a sandbox. It needs no key and no network: it asks a socket of its
sandbox. As after `os.fork`, every child goes on from the same line with all that was in memory.
"""

import time
from pathlib import Path

import mitos
import mitos.guest

PROGRAM = """
import os, random, guest

primes = [n for n in range(2, 20_000) if all(n % d for d in range(2, int(n**0.5) + 1))]

children = guest.fork(3, label="dice")
if children:
    print(*children, flush=True)
else:
    answer = f"{guest.identity().sandbox_id} draws {random.choice(primes)} of {len(primes)} primes"
    with open("/workspace/partial", "w") as file:
        file.write(answer)
    os.rename("/workspace/partial", "/workspace/answer")
"""

server = mitos.SandboxServer.from_auth()
with mitos.create("python") as sandbox:
    # One file is all it needs inside; `pip install mitos-run` brings it too.
    sandbox.files.write("/workspace/guest.py", Path(mitos.guest.__file__).read_text())
    result = sandbox.exec(["python3", "-c", PROGRAM])
    for child_id in result.stdout.split():
        with server.connect(child_id) as child:
            deadline = time.monotonic() + 30
            while not child.files.exists("/workspace/answer") and time.monotonic() < deadline:
                time.sleep(0.05)
            print(child.files.read("/workspace/answer"))
    print("the family:", *[f"{kin.id} {kin.phase}" for kin in sandbox.tree()], sep="\n  ")
