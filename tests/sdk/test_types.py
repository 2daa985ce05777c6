"""The values of the public surface: fields, order and defaults as published."""

from __future__ import annotations

import dataclasses
from typing import Any

import mitos
from mitos import types

REQUIRED: Any = object()

FIELDS = {
    types.ExecResult: {
        "exit_code": REQUIRED,
        "stdout": REQUIRED,
        "stderr": REQUIRED,
        "exec_time_ms": 0.0,
    },
    types.Execution: {
        "text": None,
        "logs": {"stdout": [], "stderr": []},
        "results": [],
        "error": None,
    },
    types.ExecutionError: {"name": REQUIRED, "value": REQUIRED, "traceback": []},
    types.Result: {"data": {}, "is_main_result": False},
    types.FileInfo: {
        "name": REQUIRED,
        "is_dir": REQUIRED,
        "size": REQUIRED,
        "mode": 0,
        "modified_at": None,
    },
    types.Network: {
        "block": False,
        "egress": "deny",
        "allow_domains": [],
        "allow_cidrs": [],
        "inbound": "deny",
        "inbound_cidrs": [],
    },
    types.SandboxInfo: dict.fromkeys(
        ("name", "phase", "endpoint", "node", "sandbox_id", "fork_time_ms", "pool"), REQUIRED
    ),
    types.ForkInfo: {
        **dict.fromkeys(("name", "sandbox_id", "endpoint", "node", "phase"), REQUIRED),
        "fork_time_ms": 0.0,
    },
    types.PoolStatus: {
        "name": REQUIRED,
        "ready_snapshots": REQUIRED,
        "desired": REQUIRED,
        "node_distribution": {},
    },
}


def default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return REQUIRED if field.default is dataclasses.MISSING else field.default


def test_fields_order_and_defaults_are_the_published_ones() -> None:
    for kind, expected in FIELDS.items():
        found = {field.name: default(field) for field in dataclasses.fields(kind)}
        assert list(expected) == list(found), kind
        assert expected == found, kind


def test_values_can_be_changed_and_compare_by_content() -> None:
    first, second = mitos.ExecResult(0, "a", ""), mitos.ExecResult(0, "a", "")
    assert first == second

    first.stdout = "b"

    assert first != second


def test_enums_equal_their_published_texts() -> None:
    policies = {"FRESH": "Fresh", "SHARE": "Share", "CLONE": "Clone", "SNAPSHOT": "Snapshot"}
    phases = {
        "PENDING": "Pending",
        "RESTORING": "Restoring",
        "READY": "Ready",
        "TERMINATING": "Terminating",
        "FAILED": "Failed",
    }

    assert policies == dict(mitos.ForkPolicy.__members__)
    assert phases == dict(types.SandboxPhase.__members__)


def test_a_network_is_sent_as_what_differs_from_its_defaults() -> None:
    assert {} == mitos.Network().to_dict()
    assert {"block": True} == mitos.Network(block=True).to_dict()
    assert {} == mitos.Network(egress="", inbound="deny").to_dict()
    whole = mitos.Network(
        block=False,
        egress="allow",
        allow_domains=["pypi.org:443"],
        allow_cidrs=["10.0.0.0/8"],
        inbound="allow",
        inbound_cidrs=["192.168.0.0/16"],
    )
    expected = {
        "egress": "allow",
        "allow_domains": ["pypi.org:443"],
        "allow_cidrs": ["10.0.0.0/8"],
        "inbound": "allow",
        "inbound_cidrs": ["192.168.0.0/16"],
    }
    sent = whole.to_dict()

    assert expected == sent
    assert sent["allow_domains"] is not whole.allow_domains
