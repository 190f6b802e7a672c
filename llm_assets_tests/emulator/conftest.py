"""The vendors' own SDKs as clients of the emulator that all tests share."""

from collections.abc import Iterator

import pytest
from anthropic import Anthropic
from openai import OpenAI

from llm_assets_tests.emulator_process import Emulator


@pytest.fixture(scope="session")
def anthropic_sdk(running: Emulator) -> Iterator[Anthropic]:
    with Anthropic(
        base_url=running.url, api_key="test", max_retries=0, timeout=20, _strict_response_validation=True
    ) as sdk:
        yield sdk


@pytest.fixture(scope="session")
def openai_sdk(running: Emulator) -> Iterator[OpenAI]:
    with OpenAI(
        base_url=running.openai_url, api_key="test", max_retries=0, timeout=20, _strict_response_validation=True
    ) as sdk:
        yield sdk


@pytest.fixture
def anthropic(emulator: Emulator, anthropic_sdk: Anthropic) -> Anthropic:
    return anthropic_sdk


@pytest.fixture
def openai(emulator: Emulator, openai_sdk: OpenAI) -> OpenAI:
    return openai_sdk
