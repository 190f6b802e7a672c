"""What most tests stand on: one emulator process, emptied before each test."""

from collections.abc import Iterator

import pytest
from hypothesis import settings

from llm_assets_tests.emulator_process import Emulator

# A shared machine may be slow for a second; that is no defect.
settings.register_profile("project", deadline=None)
settings.load_profile("project")


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    with Emulator(tmp_path_factory.mktemp("emulator")) as emulator:
        yield emulator


@pytest.fixture
def emulator(running: Emulator) -> Emulator:
    running.reset()
    running.settings(latency_s=0)
    return running
