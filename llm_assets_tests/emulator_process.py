"""The emulator as a real process, for tests: started, killed, restarted, told what to do and asked what it saw."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from llm_assets_tests.ports import free_port

_STOP_SECONDS_MAX = 10


class EmulatorGone(Exception):
    """The process ended although nobody stopped it here; its words follow."""


class Emulator:
    """One emulator over one state directory.

        with Emulator(tmp_path) as emulator:
            Anthropic(base_url=emulator.url, api_key="test")
            OpenAI(base_url=emulator.openai_url, api_key="test")

    It runs in a process group of its own; `kill` is a crash, `restart` comes back at the same port.
    """

    def __init__(
        self,
        state_dir: Path,
        *,
        model: str = "scripted",
        latency_s: float = 0,
        faults_file: Path | None = None,
        port: int = 0,
    ) -> None:
        self.state_dir, self.model, self.latency_s, self.faults_file = state_dir, model, latency_s, faults_file
        self.port = port or free_port()
        self.url = ""
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None
        return self._process.pid

    @property
    def openai_url(self) -> str:
        """OpenAI's base URL."""
        return f"{self.url}/v1"

    # -- the process

    def start(self) -> Self:
        """Start and wait until it answers."""
        log = self.state_dir / "emulator.log"
        self.state_dir.mkdir(parents=True, exist_ok=True)
        with log.open("a") as errors:
            self._process = subprocess.Popen(
                self._command(), stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True
            )
        assert self._process.stdout is not None
        ready = self._process.stdout.readline()
        if not ready:
            self._process.wait()
            self._process.stdout.close()
            raise EmulatorGone(f"exit code {self._process.returncode}: {log.read_text()[-2000:]}")
        self.url = json.loads(ready)["url"]
        return self

    def stop(self) -> None:
        """End it in good order."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """End it as a crash does."""
        self._end(signal.SIGKILL)

    def restart(self) -> Self:
        """Start again, over the same state and at the same address."""
        self._end(signal.SIGKILL)
        return self.start()

    # -- what it is told

    def faults(self, rules: Sequence[dict[str, Any] | str]) -> None:
        """Put these faults in force, and no others."""
        self.call("PUT", "/_emulator/faults", list(rules))

    def advance_clock(self, seconds: float) -> None:
        """Let time pass."""
        self.call("POST", "/_emulator/clock", {"advance_s": seconds})

    def freeze_clock(self, frozen: bool = True) -> None:
        """Let time stand still."""
        self.call("POST", "/_emulator/clock", {"frozen": frozen})

    def hold(self, held: bool = True) -> None:
        """Keep batches in progress, or let them go on."""
        self.call("POST", "/_emulator/hold", {"held": held})

    def settings(self, **settings: Any) -> None:
        """Change `latency_s` or `limits`."""
        self.call("PUT", "/_emulator/settings", settings)

    def reset(self) -> None:
        """Forget everything."""
        self.call("POST", "/_emulator/reset", {})

    # -- what it saw

    def accounting(self) -> dict[str, Any]:
        """The totals."""
        totals: dict[str, Any] = self.call("GET", "/_emulator/accounting")
        return totals

    def calls(self) -> dict[str, int]:
        """HTTP calls to the vendors' APIs, by name, such as "anthropic.create"."""
        calls: dict[str, int] = self.accounting()["calls"]
        return calls

    def injected(self) -> dict[str, int]:
        """How often each fault was put in the way of a row, a batch or a call."""
        injected: dict[str, int] = self.call("GET", "/_emulator/faults")["injected"]
        return injected

    def batches(self) -> list[dict[str, Any]]:
        """Every batch, oldest first."""
        batches: list[dict[str, Any]] = self.call("GET", "/_emulator/accounting?detail=batches")["batches"]
        return batches

    def rows(self) -> Iterator[dict[str, Any]]:
        """Every row of every accepted batch."""
        return self._lines("/_emulator/accounting?detail=rows")

    def contents(self, *, billed_min: int = 0) -> Iterator[dict[str, Any]]:
        """How often each content was accepted and billed."""
        return self._lines(f"/_emulator/accounting?detail=contents&billed_min={billed_min}")

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """A call to one of the emulator's own endpoints."""
        return json.loads(self._raw(method, path, body))

    def _lines(self, path: str) -> Iterator[dict[str, Any]]:
        return (json.loads(line) for line in self._raw("GET", path).splitlines())

    def _raw(self, method: str, path: str, body: Any = None) -> bytes:
        self._check_alive()
        connection = HTTPConnection(urlsplit(self.url).netloc, timeout=60)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            reply = connection.getresponse()
            content = reply.read()
        finally:
            connection.close()
        if reply.status != 200:
            raise ValueError(f"{method} {path}: HTTP {reply.status} {content.decode(errors='replace')}")
        return content

    def _check_alive(self) -> None:
        code = self._process.poll() if self._process else None
        if code is not None:
            raise EmulatorGone(f"exit code {code}: {(self.state_dir / 'emulator.log').read_text()[-2000:]}")

    def _command(self) -> list[str]:
        command = [sys.executable, "-m", "llm_assets.emulator", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--model", self.model, "--state-dir", str(self.state_dir), "--latency", str(self.latency_s)]
        return [*command, "--faults", str(self.faults_file)] if self.faults_file else command

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            os.killpg(process.pid, how)
        try:
            process.wait(_STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
