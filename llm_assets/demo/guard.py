"""Runs a command, and ends its whole process group when whoever started this is gone, by whatever signal.

Standard input is a pipe whose other end the starter holds and never writes to: the system closes it when that process
ends, even by SIGKILL, on Linux as on macOS. Run by path, as leader of a process group; it imports nothing of ours, so
that it is small and there at once.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from threading import Thread


def main(command: list[str]) -> int:
    """Run the command and return its exit code."""
    # What ends the group in good order is for the others in it. A handler, as a child would inherit an ignored signal.
    signal.signal(signal.SIGTERM, lambda *_: None)
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)  # noqa: S603 (whose demo it is wrote the command)
    Thread(target=_end_with_the_starter, daemon=True).start()
    code = process.wait()
    return code if code >= 0 else 128 - code


def _end_with_the_starter() -> None:
    os.read(sys.stdin.fileno(), 1)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
