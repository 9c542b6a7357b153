"""A Qdrant client in memory whose operations others' may come between, as on a server."""

from __future__ import annotations

from typing import Any

from toastrack_qdrant.host import Host


class OneAtATime(Host):
    """Makes its calls at once: here no two of them run together."""

    @property
    def local(self) -> bool:
        return False

    async def call(self, session: Any, name: str, /, *args: Any, **options: Any) -> Any:
        if name != "batch_update_points":
            return await super().call(session, name, *args, **options)
        # A server makes the operations of a batch one by one, and others' between them.
        label, operations = args
        for operation in operations:
            await super().call(session, name, label, [operation], **options)
