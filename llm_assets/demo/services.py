"""Processes that a demo starts: each with all its descendants in a group of its own, which ends when the demo does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from llm_assets.demo.loopback import answers_at
from llm_assets.errors import LLMAssetsError

ROOT = Path(__file__).parents[2]
_GUARD = Path(__file__).with_name("guard.py")
_START_SECONDS_MAX = 120


@dataclass(frozen=True, slots=True)
class Service:
    """A process with all its descendants, in a process group of its own, writing to a log.

    The group's leader is a guard: when this process dies, by whatever signal, it ends the group.
    """

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @classmethod
    def start(cls, name: str, command: list[str], environment: Mapping[str, str], log: Path) -> Service:
        """Start it in the project's folder; nothing of it reaches the terminal."""
        with log.open("ab") as output:
            process = subprocess.Popen(  # noqa: S603 (the commands are the demo's own)
                [sys.executable, "-I", "-S", str(_GUARD), *command],
                cwd=ROOT,
                env=dict(environment),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return cls(name, process, log)

    def check(self) -> None:
        """Raise when it is not there any more."""
        if (code := self.process.poll()) is not None:
            raise LLMAssetsError(f"{self.name} ended with exit code {code}; its log says why: {self.log}")

    def wait_for(self, port: int, path: str) -> None:
        """Wait until it answers there over HTTP. Raises LLMAssetsError when it ends instead, or takes too long."""
        deadline = time.monotonic() + _START_SECONDS_MAX
        while not answers_at(port, path):
            self.check()
            if time.monotonic() > deadline:
                raise LLMAssetsError(f"{self.name} did not answer within {_START_SECONDS_MAX} s; its log: {self.log}")
            time.sleep(0.2)  # another process cannot tell us that it listens

    def stop(self, patience_s: float = 10.0) -> None:
        """End the whole group: children may outlive the first signal."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if end_group(self.process.pid, number, patience_s):
                break
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(patience_s)
        assert self.process.stdin is not None
        self.process.stdin.close()  # last of all: the guard takes it for our death


def end_group(group: int, number: int, patience_s: float) -> bool:
    """Signal a process group, unless with 0, and wait for its end; whether that came in time."""
    deadline = time.monotonic() + patience_s
    while lives(group):
        if number:
            with suppress(ProcessLookupError):
                os.killpg(group, number)
            number = 0
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)  # a process group can be waited for only by asking
    return True


def lives(group: int) -> bool:
    """Whether a process of the group lives: one that has ended and that nobody has waited for does not."""
    if not Path("/proc/self/stat").exists():
        try:
            os.killpg(group, 0)
        except (ProcessLookupError, PermissionError):  # macOS: nobody there but what has ended
            return False
        return True
    return any(found == group and state not in "ZX" for state, found in map(_state_and_group, _processes()))


def _processes() -> list[Path]:
    return list(Path("/proc").glob("[0-9]*"))


def _state_and_group(process: Path) -> tuple[str, int]:
    try:
        # The command's name may hold spaces and parentheses; what follows its last parenthesis does not.
        state, _, group = (process / "stat").read_text().rpartition(")")[2].split()[:3]
    except OSError:
        return "X", 0  # it ended meanwhile
    return state, int(group)
