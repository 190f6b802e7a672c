"""An instance whose assets find the emulator behind both providers."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from llm_assets_tests.emulator_process import Emulator


@pytest.fixture
def emulated(emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    monkeypatch.setenv("LLM_ASSETS_ROOT", str(tmp_path / "store"))
    for vendor, url in (("ANTHROPIC", emulator.url), ("OPENAI", f"{emulator.url}/v1")):
        monkeypatch.setenv(f"{vendor}_API_KEY", "k")
        monkeypatch.setenv(f"{vendor}_BASE_URL", url)
    with dg.DagsterInstance.ephemeral() as opened:
        yield opened
