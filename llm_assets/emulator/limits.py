"""The vendors' limits. Tests make them small: a body of 256 MB says no more than one of a kilobyte."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

_QUEUES = ("anthropic_queued_requests", "openai_enqueued_tokens")


@dataclass
class Limits:
    """What one batch or file may hold; megabytes are taken for 10^6, the stricter reading."""

    anthropic_rows: int = 100_000
    anthropic_bytes: int = 256_000_000
    openai_rows: int = 50_000
    openai_bytes: int = 200_000_000
    anthropic_queued_requests: int | None = None  # in all batches that are in progress
    openai_enqueued_tokens: int | None = None  # of one model, in all batches that are in progress

    def change(self, changes: dict[str, Any]) -> None:
        """Set some of them. ValueError for names and values that make no sense."""
        known = [each.name for each in fields(self)]
        for name, value in changes.items():
            if name not in known:
                raise ValueError(f"found the limit {name!r}; expected one of {', '.join(known)}")
            optional = name in _QUEUES and value is None
            if not optional and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
                raise ValueError(f"{name} is {value!r}; expected a number of 0 or more")
        for name, value in changes.items():
            setattr(self, name, value)

    def as_dict(self) -> dict[str, Any]:
        """All of them."""
        return asdict(self)
