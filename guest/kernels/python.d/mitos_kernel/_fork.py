"""What a process must do when its machine was copied.

It has to draw other random numbers than its siblings, and to run the hooks of the cells' own code.
"""

import os
import sys

from ._traceback import traceback_lines

_hooks = []
_reseeds = None  # None: as the environment says


def after_fork(function):
    """Has `function()` called once in every fork of the sandbox, before its next cell.

    Usable as a decorator. What a function raises is shown on the error output of the next cell; the
    others still run. Together they have 5 seconds, after which the fork fails.
    """
    _hooks.append(function)
    return function


def reseed_after_fork(enabled):
    """Says whether forks give new seeds to the generators of `random`, numpy and torch.

    They do by default. Without it all forks draw the same numbers, from where their parent stood.
    The variable `MITOS_RESEED_AFTER_FORK=0` does the same from outside. What must never repeat
    (`secrets`, `uuid`, `ssl`) is not touched by this.
    """
    global _reseeds
    _reseeds = bool(enabled)


def apply(entropy, *, forked):
    """Makes this process differ from its siblings; returns what went wrong, as text."""
    seed = int.from_bytes(entropy, "big")
    steps = [lambda: _reseed_ssl(seed), _forget_names]
    if _is_enabled():
        steps += [
            lambda: _reseed_random(seed),
            lambda: _reseed_numpy(seed),
            lambda: _reseed_torch(seed),
        ]
    if forked:
        steps += _hooks
    return "".join(filter(None, map(_failure_of, steps)))


def _is_enabled():
    return os.environ.get("MITOS_RESEED_AFTER_FORK") != "0" if _reseeds is None else _reseeds


def _failure_of(step):
    try:
        step()
    except BaseException as error:
        title = "after the fork, %s failed:" % getattr(step, "__qualname__", repr(step))
        return "\n".join([title, *traceback_lines(error), ""])
    return ""


def _reseed_random(seed):
    random = sys.modules.get("random")
    if random is not None:
        random.seed(seed)


def _forget_names():
    """Names of temporary files are drawn from a generator of their own."""
    tempfile = sys.modules.get("tempfile")
    if tempfile is not None:
        tempfile._name_sequence = None


def _reseed_numpy(seed):
    """Last part first: with the parts in their order numpy would draw what `random` draws."""
    random = sys.modules.get("numpy.random")
    if random is not None:
        random.seed([seed >> shift & 0xFFFFFFFF for shift in range(352, -1, -32)])


def _reseed_torch(seed):
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "manual_seed"):
        torch.manual_seed(seed & 0x7FFFFFFFFFFFFFFF)


def _reseed_ssl(seed):
    """OpenSSL keeps generators in memory and cannot see that its machine was copied."""
    ssl = sys.modules.get("_ssl")
    if ssl is not None:
        ssl.RAND_add(seed.to_bytes(48, "big"), 48.0)
