"""A server that nobody here wrote: llmock speaks OpenAI's and Anthropic's batch protocols in its own way.

It answers in prose whatever it is asked for, writes URLs as paths, and has no batches of responses: all of it must end
as outcomes, and none of it as an exception. It brings another event loop along, which would change our own emulator:
it lives in an environment of its own (`python -m venv there && there/bin/pip install llmock`).
"""

import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from live.conversation import Conversation
from live.facts import differences
from llm_assets.embedding import Embedding
from llm_assets.enrichment import Enrichment
from llm_assets.ledger import Ledger
from llm_assets.platform import Platform, utc_now
from llm_assets.providers import Credentials
from llm_assets.records import Mode
from llm_assets.store import Store
from llm_assets.waves import Step
from llm_assets_tests.emulator_process import Emulator
from llm_assets_tests.platforms import enriched, failed, go_on, labels, submit, write_documents
from llm_assets_tests.ports import free_port
from llm_assets_tests.test_embedding import vectors

TEXTS: list[str | None] = [f"Review {number}: this is a good thing." for number in range(6)]
CHAT = replace(labels("openai"), endpoint="/v1/chat/completions")
SECONDS_MAX = 60
LLMOCK = os.environ.get("LLMOCK", "")

pytestmark = pytest.mark.skipif(not LLMOCK, reason="LLMOCK does not name an llmock, in an environment of its own")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_port()
    command = [LLMOCK, "serve", "--port", str(port)]
    with (tmp_path_factory.mktemp("llmock") / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + SECONDS_MAX
        while not is_up(f"http://127.0.0.1:{port}/docs"):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)  # it says nothing that could be waited for
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def is_up(url: str) -> bool:
    try:
        with urlopen(url, timeout=5):
            return True
    except URLError:
        return False


@pytest.fixture
def platform(tmp_path: Path, url: str) -> Iterator[Platform]:
    credentials = {
        "anthropic": Credentials("mock-key", f"{url}/anthropic"),
        "openai": Credentials("mock-key", f"{url}/v1"),
    }
    opened = Platform(Store(tmp_path), Ledger(f"sqlite:///{tmp_path / 'ledger.db'}", utc_now), credentials)
    yield opened
    opened.close()


@pytest.mark.parametrize("vendor", ["anthropic", "openai"])
def test_the_live_check_tells_where_it_differs_from_the_emulator(
    url: str, emulator: Emulator, platform: Platform, vendor: str
) -> None:
    ours = Credentials("k", emulator.url if vendor == "anthropic" else emulator.openai_url)
    expected = Conversation(vendor, ours, lambda _: None).hold()
    found = Conversation(vendor, platform.credentials[vendor], lambda _: time.sleep(0.2)).hold()  # it takes seconds
    points = {each.point for each in differences(found, expected)}
    assert {"counts: at the end", "create: header request-id"} & points
    assert "create: status" not in points


@pytest.mark.parametrize(
    ("enrichment", "answered", "reasons"),
    [
        pytest.param(vectors(output=Embedding(1536)), 6, set(), id="embeddings"),
        pytest.param(CHAT, 0, {"invalid_answer"}, id="chat, which answers in prose"),
        pytest.param(labels("openai"), 0, {"unknown"}, id="responses, which it has no batches of"),
        pytest.param(labels("anthropic"), 0, {"invalid_answer"}, id="messages, which answer in prose"),
        pytest.param(replace(CHAT, mode=Mode.REALTIME), 6, set(), id="chat in real time"),
    ],
)
def test_every_document_has_its_outcome(
    platform: Platform, enrichment: Enrichment, answered: int, reasons: set[str]
) -> None:
    write_documents(platform, TEXTS)
    submit(platform, enrichment)
    deadline = time.monotonic() + SECONDS_MAX
    while (step := go_on(platform, enrichment)) is not Step.NOTHING:
        assert step is not Step.HELD
        assert time.monotonic() < deadline
        time.sleep(0.2 if step is Step.WAIT else 0)  # its batches take three seconds of its own clock
    assert enriched(platform, enrichment).height == answered
    lost = failed(platform, enrichment)
    assert (lost.height, set(lost["reason"])) == (6 - answered, reasons)
