"""The demo's folder: one demo at a time, and nothing goes on in it that a killed one left behind.

The system holds the lock for the living process and takes it from a dead one. The locked file names that process and
its services. Their guards end them when the demo dies; where there was no time for that yet, the next demo ends what it
can prove to be meant: the process of that id that started in that moment.
"""

from __future__ import annotations

import fcntl
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import orjson

from llm_assets.demo.services import Service, end_group, lives
from llm_assets.errors import LLMAssetsError
from llm_assets.platform import process_name, this_process

_CONTENTS = ("store", "dagster_home", "emulator", "logs")
_PATIENCE_S = 5.0


@dataclass(slots=True)
class Folder:
    """All that a demo writes, while it is this process's own."""

    path: Path
    _lock: IO[bytes] | None = None
    _services: dict[str, str] = field(default_factory=dict)

    def take(self, say: Callable[[str], None]) -> None:
        """Lock it, and end what a killed demo left. Raises LLMAssetsError when another demo lives there."""
        self.path.mkdir(parents=True, exist_ok=True)
        lock = _locked(self.path / "lock")
        try:
            doubtful = [
                group for name, process in _read(lock)[1].items() if (group := _end_leftover(name, process, say))
            ]
            if doubtful:
                raise LLMAssetsError(
                    f"process groups that a killed demo may have left in {self.path}, but nothing proves it: "
                    f"{', '.join(map(str, doubtful))}. Look with `ps -A -o pid,pgid,args`. If it did, end them with "
                    f"`kill -9 -- {' '.join(f'-{group}' for group in doubtful)}`; else delete {self.path / 'lock'}"
                )
        except BaseException:
            lock.close()  # with all that it says
            raise
        self._lock = lock
        self._write()

    def prepare(self, *, keep: bool) -> None:
        """Make the folders, empty ones unless what is there shall be kept."""
        for name in _CONTENTS:
            if not keep:
                shutil.rmtree(self.path / name, ignore_errors=True)
            (self.path / name).mkdir(exist_ok=True)

    def record(self, service: Service) -> None:
        """Write down that it runs here."""
        self._services[service.name] = process_name(service.process.pid)
        self._write()

    def release(self) -> None:
        """Give it back; all services have ended."""
        if self._lock is not None:
            self._lock.truncate(0)
            self._lock.close()
            self._lock = None

    def _write(self) -> None:
        assert self._lock is not None
        self._lock.truncate(0)
        self._lock.write(orjson.dumps({"demo": this_process(), "services": self._services}))
        self._lock.flush()


def _locked(path: Path) -> IO[bytes]:
    """A file that is locked until it is closed."""
    file = path.open("a+b")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        with file:
            pid = _read(file)[0].rsplit("/", 2)[1]
        raise LLMAssetsError(
            f"a demo runs in {path.parent} already, as process {pid}. End it first (Ctrl-C where it runs, or "
            f"`kill {pid}`), or give this one another folder: --folder"
        ) from None
    except OSError as error:
        file.close()
        raise LLMAssetsError(f"{path} cannot be locked ({error}): give the demo a folder on a local disk") from error
    return file


def _read(file: IO[bytes]) -> tuple[str, dict[str, str]]:
    """The demo and its services, by the names of their processes; nobody when the last one ended in good order."""
    file.seek(0)
    content = file.read()
    if not content:
        return "/?/", {}
    found = orjson.loads(content)
    return found["demo"], found["services"]


def _end_leftover(name: str, process: str, say: Callable[[str], None]) -> int | None:
    """End a service of a killed demo if it lives; its group when one lives that may be another's as well."""
    host, pid, started = process.rsplit("/", 2)
    group = int(pid)
    now = process_name(group)
    if now.rsplit("/", 2)[0] != host:
        return None  # what ran in another container went with it, as its lock did
    if started and now == process and lives(group):
        if not end_group(group, signal.SIGKILL, _PATIENCE_S):
            return group
        say(f"Ended {name} (process {pid}), which a killed demo had left behind.")
        return None
    # A process id is not given again while a group is called by it: one that started later proves that all are gone.
    gone = not now.endswith("/") or end_group(group, 0, _PATIENCE_S)
    return None if gone else group
