"""Hosts and the switch between them. Needs root, and a network namespace in which only hosts are: see `__main__`."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

_SUBNET = "10.77.0"
_SWITCH = "switch"
_NAMESPACES = ("--net", "--uts", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc")
_UNSHARE_SECONDS_MAX = 30


def address(number: int) -> str:
    """An address of the hosts' network; the switch itself, from where all is watched, has the first."""
    return f"{_SUBNET}.{number}"


def make_switch() -> None:
    """The network that hosts are plugged into."""
    _ip("link", "set", "lo", "up")
    _ip("link", "add", _SWITCH, "type", "bridge")
    _ip("address", "add", f"{address(1)}/24", "dev", _SWITCH)
    _ip("link", "set", _SWITCH, "up")


class Host:
    """A host with a name, addresses, and one program, whose end takes all processes of the host with it.

    The program reads a line from its input when the network is there.
    """

    def __init__(
        self, name: str, numbers: list[int], program: list[str], log: Path, environment: dict[str, str]
    ) -> None:
        self.name, self.log = name, log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                ["unshare", *_NAMESPACES, *program],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env={**os.environ, **environment},
            )
        self._plug_in(numbers)
        assert self._process.stdin is not None
        self._process.stdin.write(b"go\n")
        self._process.stdin.flush()

    @property
    def is_up(self) -> bool:
        """Whether its program runs."""
        return self._process.poll() is None

    @property
    def network(self) -> list[str]:
        """What to put before a command that is to run in the host's network, though not among its processes."""
        return ["nsenter", f"--net=/proc/{self._process.pid}/ns/net", "--"]

    def pull_the_plug(self) -> None:
        """All processes of the host end at once, and its network is gone."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()

    def cut_off(self, number: int) -> None:
        """Let nothing through from the host to an address."""
        _run(*self.network, "ip", "route", "add", "unreachable", f"{address(number)}/32")

    def mend(self, number: int) -> None:
        """Undo `cut_off`."""
        _run(*self.network, "ip", "route", "del", "unreachable", f"{address(number)}/32")

    def _plug_in(self, numbers: list[int]) -> None:
        self._wait_for_namespaces()
        _ip("link", "add", f"to-{self.name}", "type", "veth", "peer", "eth0", "netns", str(self._process.pid))
        _ip("link", "set", f"to-{self.name}", "master", _SWITCH, "up")
        for number in numbers:
            _run(*self.network, "ip", "address", "add", f"{address(number)}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            _run(*self.network, "ip", "link", "set", device, "up")

    def _wait_for_namespaces(self) -> None:
        ours = Path("/proc/self/ns/net").readlink()
        theirs = Path(f"/proc/{self._process.pid}/ns/net")
        for attempt in Retrying(
            retry=retry_if_result(lambda is_made: not is_made),
            stop=stop_after_delay(_UNSHARE_SECONDS_MAX),
            wait=wait_fixed(0.05),
        ):
            with attempt:
                is_made = theirs.readlink() != ours
            attempt.retry_state.set_result(is_made)


def _ip(*arguments: str) -> None:
    _run("ip", *arguments)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
