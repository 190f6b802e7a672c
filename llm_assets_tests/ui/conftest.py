"""A day that was run to its end against the emulator, a webserver that shows it, and a browser that looks."""

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from llm_assets.demo import HOST, ROOT, Service
from llm_assets.foreground import Foreground, find_target
from llm_assets.platform import Platform, Settings
from llm_assets.records import Shard
from llm_assets.status import PartitionStatus
from llm_assets_tests.emulator_process import Emulator
from llm_assets_tests.ports import free_port

ENRICHMENT = "review_sentiment"
PARTITION = "2026-11-02"

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_TIMEOUT_MS = 20_000
# Said once to each browser, so that no invitation takes a click, and no clock decides on the colours.
_QUIET = "localStorage.setItem('communityNux', '1'); localStorage.setItem('theme', JSON.stringify('Light'));"


@dataclass(frozen=True, slots=True)
class Shown:
    """What the UI has to show, as the ledger knows it."""

    url: str
    status: PartitionStatus
    shards: tuple[Shard, ...]


@pytest.fixture(scope="module")
def chromium() -> str:
    """Where a browser is; without one nothing else of this is started."""
    found = next((path for name in _BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(_BROWSERS)} is installed (Debian: apt-get install chromium)")
    return found


@pytest.fixture(scope="module")
def shown(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    """One partition, published; the webserver is the only process of Dagster's."""
    folder = tmp_path_factory.mktemp("ui")
    home = folder / "home"
    home.mkdir()
    shutil.copy(ROOT / "dagster.yaml", home)
    with Emulator(folder / "emulator") as emulator, pytest.MonkeyPatch.context() as environment:
        for name in os.environ:
            if name.startswith(("ANTHROPIC_", "OPENAI_", "DAGSTER_", "LLM_ASSETS_")):
                environment.delenv(name)
        environment.setenv("ANTHROPIC_API_KEY", "emulator")
        environment.setenv("ANTHROPIC_BASE_URL", emulator.url)
        environment.setenv("OPENAI_API_KEY", "emulator")
        environment.setenv("OPENAI_BASE_URL", emulator.openai_url)
        environment.setenv("LLM_ASSETS_ROOT", str(folder / "store"))
        environment.setenv("DAGSTER_HOME", str(home))
        environment.setenv("DAGSTER_DISABLE_TELEMETRY", "1")
        status, shards = _materialize(home)
        port = free_port()
        service = Service.start("dagster-webserver", _webserver(port), os.environ, folder / "webserver.log")
        try:
            service.wait_for(port, "/server_info")
            yield Shown(f"http://{HOST}:{port}", status, shards)
        finally:
            service.stop()


@pytest.fixture(scope="module")
def browser(chromium: str, shown: Shown) -> Iterator[Browser]:
    """After `shown`: Playwright keeps an event loop in this thread, and Dagster's runs want one of their own."""
    assert shown
    expect.set_options(timeout=_TIMEOUT_MS)
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=_ARGUMENTS)
        yield launched
        launched.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with browser.new_context(viewport={"width": 1400, "height": 900}, color_scheme="light") as context:
        context.set_default_timeout(_TIMEOUT_MS)
        context.add_init_script(_QUIET)
        yield context.new_page()


def _materialize(home: Path) -> tuple[PartitionStatus, tuple[Shard, ...]]:
    """Documents, batches, then the tables: the runs that the daemon would start, here and now."""
    platform = Platform.open(Settings.from_environment())
    try:
        with dg.DagsterInstance.from_config(str(home)) as instance:
            target = find_target(ENRICHMENT, PARTITION)
            foreground = Foreground(target, platform, instance, poll_seconds=0.1, on_problem=print)
            *_, status = foreground.complete()
        return status, tuple(platform.ledger.shards(ENRICHMENT, PARTITION))
    finally:
        platform.close()


def _webserver(port: int) -> list[str]:
    module = [sys.executable, "-m", "dagster_webserver", "--workspace", "workspace.yaml"]
    return [*module, "--host", HOST, "--port", str(port)]
