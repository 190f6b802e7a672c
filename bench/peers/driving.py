"""How a peer is driven: it reads a job, is timed from there until all answers are in memory, and says what it took."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Job:
    """What is asked, of which documents (`document_id`, `text`), where, and a folder for the peer's own files."""

    provider: str
    model: str
    system: str
    schema: dict[str, Any]
    max_tokens: int
    url: str
    key: str
    folder: str
    documents: list[dict[str, str]]

    def messages(self, document: dict[str, str]) -> list[dict[str, str]]:
        """The turns of one request."""
        return [{"role": "system", "content": self.system}, {"role": "user", "content": document["text"]}]


def drive(answer_all: Callable[[Job], int]) -> None:
    """Read the job, call `answer_all`, which returns how many answers it has, and print a line of JSON."""
    job = Job(**json.loads(Path(sys.argv[1]).read_text()))
    with redirect_stdout(sys.stderr):  # some print what they do
        wall, cpu = time.perf_counter(), _cpu_s()
        answered = answer_all(job)
        wall, cpu = time.perf_counter() - wall, _cpu_s() - cpu
    sys.stdout.write(json.dumps({"documents": answered, "wall_s": wall, "cpu_s": cpu, "peak_mib": 0.0}) + "\n")


def environment(provider: str, url: str, key: str, folder: Path) -> dict[str, str]:
    """The environment of a peer: where the server is, nothing sent to anybody else, files in a folder of its own."""
    return {
        **os.environ,
        f"{provider.upper()}_API_KEY": key,
        f"{provider.upper()}_BASE_URL": f"{url}/v1" if provider == "openai" else url,
        "HOME": str(folder),
        "CURATOR_DISABLE_RICH_DISPLAY": "1",
        "HF_HUB_OFFLINE": "1",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "TELEMETRY_ENABLED": "false",
    }


def _cpu_s() -> float:
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system
