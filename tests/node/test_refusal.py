from __future__ import annotations

import errno
import os

import pytest

from mitos.engine.base import EngineError, EngineFault
from mitos.node.refusal import storage_errors, translate
from mitos.wire.errors import TABLE, ApiError


@pytest.mark.parametrize("fault", EngineFault)
def test_every_fault_of_an_engine_is_told_with_its_remedy(fault: EngineFault) -> None:
    error = EngineError("no such thing here", fault=fault, remediation="Do the other thing.")

    told = translate(error, "the template could not be booted")

    assert told.code in TABLE
    assert told.cause == "no such thing here"
    assert told.remediation == "Do the other thing."


def host_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


FAULTS = [
    (errno.ENOSPC, "quota_exceeded", 429, "disk"),
    (errno.EDQUOT, "quota_exceeded", 429, "disk"),
    (errno.EMFILE, "quota_exceeded", 429, "descriptors"),
    (errno.ENFILE, "quota_exceeded", 429, "descriptors"),
    (errno.EROFS, "internal", 503, None),
    (errno.EIO, "internal", 503, None),
]


@pytest.mark.parametrize(("number", "code", "status", "dimension"), FAULTS)
def test_a_fault_of_the_host_is_told_as_such_however_deep(
    number: int, code: str, status: int, dimension: str | None
) -> None:
    with pytest.raises(ApiError) as caught, storage_errors("it failed"):
        raise host_error(number)
    try:
        try:
            raise host_error(number)
        except OSError as exc:
            raise ValueError("cannot start runsc") from exc
    except ValueError as exc:
        error = EngineError("making a sandbox failed")
        error.__cause__ = exc

    for told in (caught.value, translate(error, "it failed")):
        assert (code, status) == (told.code, told.status)
        assert dimension == told.context.get("dimension")
        assert told.remediation


def test_a_program_that_found_the_disk_full_is_believed() -> None:
    error = EngineError("runsc ended with 128: mkdir /x: no space left on device")

    assert "quota_exceeded" == translate(error, "it failed").code


@pytest.mark.parametrize("passes", [ConnectionResetError, TimeoutError, BrokenPipeError])
def test_what_is_no_storage_passes(passes: type[OSError]) -> None:
    with pytest.raises(passes), storage_errors("it failed"):
        raise passes
