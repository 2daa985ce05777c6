"""Best of n: eight ideas for one bug, tried at the same time in eight forks of one warm sandbox.

    MITOS_BASE_URL=http://127.0.0.1:8080 python examples/03_best_of_n.py

A repository with a failing test suite stands warm in a sandbox. Each fork gets one patch, as an
agent would write it, and runs the tests. The one that passes all of them takes the parent's place.
No model is asked: the patches are below.
"""

from concurrent.futures import ThreadPoolExecutor

import mitos

MODULE = """
def median(values):
    values = sorted(values)
    return values[len(values) // 2]
"""

TESTS = """
import unittest
from stats import median

class Median(unittest.TestCase):
    def test_odd(self): self.assertEqual(median([3, 1, 2]), 2)
    def test_even(self): self.assertEqual(median([4, 1, 3, 2]), 2.5)
    def test_one(self): self.assertEqual(median([7]), 7)
    def test_input_stays(self):
        values = [2, 1]; median(values); self.assertEqual(values, [2, 1])
    def test_empty(self):
        with self.assertRaises(ValueError): median([])
"""

MIDDLE = "    middle = len(values) // 2\n"
PATCHES = {
    "take the lower middle": "    return sorted(values)[(len(values) - 1) // 2]\n",
    "use the mean": "    return sum(values) / len(values)\n",
    "average two middles": "    values = sorted(values)\n" + MIDDLE
    + "    return (values[middle] + values[~middle]) / 2\n",
    "sort in place": "    values.sort()\n" + MIDDLE
    + "    return (values[middle] + values[~middle]) / 2\n",
    "round the middle": "    return sorted(values)[round(len(values) / 2) - 1]\n",
    "refuse nothing": "    import statistics\n    return statistics.median(values or [0])\n",
    "the library's": "    import statistics\n    return statistics.median(values)\n",
    "drop the sort": MIDDLE + "    return (values[middle] + values[~middle]) / 2\n",
}


def prepare() -> mitos.DirectSandbox:
    """A sandbox with the repository and its failing tests."""
    sandbox = mitos.create("python")
    sandbox.files.write("/workspace/stats.py", MODULE)
    sandbox.files.write("/workspace/test_stats.py", TESTS)
    print(f"before: {run_tests(sandbox)} of 5 tests pass")
    return sandbox


def run_tests(sandbox: mitos.DirectSandbox) -> int:
    """How many tests pass."""
    result = sandbox.exec("python3 -m unittest -v test_stats 2>&1", timeout=60)
    return result.stdout.count("... ok")


def attempt(sandbox: mitos.DirectSandbox, patch: str) -> int:
    """Puts a patch in and tests it."""
    sandbox.files.write("/workspace/stats.py", f"def median(values):\n{patch}")
    return run_tests(sandbox)


def main() -> None:
    parent = prepare()
    forks = parent.fork(len(PATCHES))
    with ThreadPoolExecutor(len(forks)) as pool:
        scores = list(pool.map(attempt, forks, PATCHES.values()))
    for title, score in zip(PATCHES, scores, strict=True):
        print(f"  {score} of 5  {title}")

    best = max(range(len(forks)), key=scores.__getitem__)
    winner = forks[best]
    print(f"changed by the winner: {', '.join(parent.diff(winner).modified)}")
    for loser in forks:
        if loser is not winner:
            loser.terminate()
    winner.promote()
    print(f"promoted: {list(PATCHES)[best]!r} is now {winner.id}")
    for kin in winner.tree():
        print(f"  {'└─ ' if kin.parent_uid else ''}{kin.id} {kin.phase}")
    print(f"after: {run_tests(winner)} of 5 tests pass")
    winner.terminate()


main()
