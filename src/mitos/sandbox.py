"""`mitos.Sandbox`: the name published code starts from."""

from __future__ import annotations

from typing import Any

from mitos.direct import DirectSandbox, create
from mitos.types import Network

__all__ = ["Sandbox"]


class Sandbox:
    """Starts sandboxes; `Sandbox.create` is `mitos.create`."""

    @staticmethod
    def create(
        image: str = "python",
        api_key: str | None = None,
        base_url: str | None = None,
        id: str | None = None,  # noqa: A002  published name
        network: Network | None = None,
        idempotency_key: str | None = None,
        workload: dict[str, Any] | None = None,
        resources: dict[str, int] | None = None,
        region: str | None = None,
    ) -> DirectSandbox:
        """Starts a sandbox; arguments and errors as `mitos.create`."""
        return create(
            image,
            api_key,
            base_url,
            id,
            network,
            idempotency_key,
            workload,
            resources,
            region,
        )
