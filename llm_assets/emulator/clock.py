"""The emulator's time: real time plus an offset, or standing still."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass
class Clock:
    """All timestamps and expiries come from here. `real` is the time that it runs along with."""

    real: Callable[[], float] = time.time
    offset_s: float = 0.0
    frozen_at: float | None = None

    def now(self) -> float:
        """Seconds since 1970."""
        return self.frozen_at if self.frozen_at is not None else self.real() + self.offset_s

    def advance(self, seconds: float) -> None:
        """Move on, standing still or not."""
        if self.frozen_at is None:
            self.offset_s += seconds
        else:
            self.frozen_at += seconds

    def freeze(self, frozen: bool) -> None:
        """Stand still, or run on from where it stands."""
        now = self.now()
        self.offset_s = now - self.real()
        self.frozen_at = now if frozen else None

    def state(self) -> dict[str, float | None]:
        """What has to be kept to go on after a restart."""
        return {"offset_s": self.offset_s, "frozen_at": self.frozen_at}


def rfc3339(seconds: float | None) -> str | None:
    """Such as `2026-11-23T06:00:00.000000Z`."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
