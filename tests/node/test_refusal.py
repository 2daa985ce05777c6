from __future__ import annotations

import pytest

from mitos.engine.base import EngineError, EngineFault
from mitos.node.refusal import translate
from mitos.wire.errors import TABLE


@pytest.mark.parametrize("fault", EngineFault)
def test_every_fault_of_an_engine_is_told_with_its_remedy(fault: EngineFault) -> None:
    error = EngineError("no such thing here", fault=fault, remediation="Do the other thing.")

    told = translate(error, "the template could not be booted")

    assert told.code in TABLE
    assert told.cause == "no such thing here"
    assert told.remediation == "Do the other thing."
