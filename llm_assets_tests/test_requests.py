"""Documents × enrichment → requests: identity, deduplication, and documents that cannot be asked about."""

from dataclasses import replace

import orjson
import polars as pl
import pytest

from llm_assets.enrichment import Enrichment
from llm_assets.output_schema import OutputSchema
from llm_assets.prompt import Prompt
from llm_assets.providers import get_provider
from llm_assets.records import Reason
from llm_assets.requests import RenderedSlice, Renderer

OUTPUT = OutputSchema.from_fields("e", {"label": {"type": "string", "enum": ["a", "b"]}}, "test")
ENRICHMENT = Enrichment(
    name="e",
    documents="d",
    provider="anthropic",
    model_name="claude-haiku-5-5",
    prompt=Prompt.parse("system:\nLabel it.\n\nuser:\n{{ title }}: {{ text }}", "prompt.md"),
    output=OUTPUT,
)
DOCUMENTS = pl.DataFrame(
    {"document_id": ["1", "2", "3"], "text": ["x", "y", "x"], "title": ["t", "t", "t"], "price": [1, 2, 3]}
)


def render(
    enrichment: Enrichment = ENRICHMENT,
    documents: pl.DataFrame = DOCUMENTS,
    bytes_max: int = 1_000_000,
    room: dict[str, int] | None = None,
) -> RenderedSlice:
    dialect = get_provider(enrichment.provider, enrichment.endpoint).dialect
    return Renderer(enrichment, dialect, bytes_max, room).render(documents)  # type: ignore[arg-type]


def fingerprints(enrichment: Enrichment = ENRICHMENT, documents: pl.DataFrame = DOCUMENTS) -> list[str]:
    return render(enrichment, documents).plan["fingerprint"].to_list()


def test_identical_documents_share_one_request() -> None:
    rendered = render()
    one, other, same = rendered.plan["fingerprint"]
    assert one == same != other
    assert set(rendered.bodies) == {one, other}


def test_a_request_holds_the_rendered_prompt_and_the_schema() -> None:
    rendered = render()
    body = orjson.loads(rendered.bodies[rendered.plan["fingerprint"][1]])
    assert body["messages"] == [{"role": "user", "content": "t: y"}]
    assert body["output_config"]["format"]["schema"] == OUTPUT.json_schema


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param(replace(ENRICHMENT, model_name="claude-sonnet-5-5"), id="model"),
        pytest.param(replace(ENRICHMENT, max_tokens=99), id="max-tokens"),
        pytest.param(replace(ENRICHMENT, params={"output_config": {"effort": "low"}}), id="params"),
        pytest.param(replace(ENRICHMENT, prompt=Prompt.parse("{{ title }}: {{ text }}", "p")), id="prompt"),
        pytest.param(replace(ENRICHMENT, output=OutputSchema.from_fields("e", {"label": "string"}, "t")), id="schema"),
        pytest.param(replace(ENRICHMENT, provider="openai"), id="provider"),
    ],
)
def test_what_decides_the_answer_changes_the_fingerprint(changed: Enrichment) -> None:
    assert not set(fingerprints(changed)) & set(fingerprints())


def test_two_endpoints_of_a_provider_are_two_questions() -> None:
    responses = replace(ENRICHMENT, provider="openai")
    chat = replace(responses, endpoint="/v1/chat/completions")
    assert not set(fingerprints(responses)) & set(fingerprints(chat))


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param(replace(ENRICHMENT, attempts=9, failure_rate_max=1.0, source="elsewhere"), id="handling"),
        pytest.param(replace(ENRICHMENT, keep=("price",)), id="kept-columns"),
        pytest.param(replace(ENRICHMENT, name="other"), id="name"),
    ],
)
def test_what_does_not_decide_the_answer_leaves_it(changed: Enrichment) -> None:
    assert fingerprints(changed) == fingerprints()


def test_a_column_that_the_prompt_does_not_use_changes_nothing() -> None:
    assert fingerprints(documents=DOCUMENTS.with_columns(price=pl.lit(7))) == fingerprints()


def test_kept_columns_travel_with_the_plan() -> None:
    assert render(replace(ENRICHMENT, keep=("price",))).plan["price"].to_list() == [1, 2, 3]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param(None, Reason.EMPTY_DOCUMENT, id="null"),
        pytest.param("", Reason.EMPTY_DOCUMENT, id="empty"),
        pytest.param(" \n\t ", Reason.EMPTY_DOCUMENT, id="white-space"),
        pytest.param("x" * 20_000, Reason.DOCUMENT_TOO_LARGE, id="larger-than-a-shard"),
    ],
)
def test_a_document_that_cannot_be_asked_about_fails_alone(text: str | None, reason: Reason) -> None:
    documents = DOCUMENTS.with_columns(text=pl.Series(["x", text, "z"]))
    rendered = render(documents=documents, bytes_max=10_000)
    assert rendered.plan["reason"].to_list() == [None, reason, None]
    assert rendered.plan["fingerprint"][1] is None
    assert len(rendered.bodies) == 2
    assert text is None or len(text) < 9 or text not in str(rendered.plan["message"][1])


def test_more_room_keeps_the_fingerprint_and_changes_the_body() -> None:
    fingerprint = fingerprints()[0]
    rendered = render(room={fingerprint: 2048})
    assert rendered.plan["fingerprint"].to_list() == fingerprints()
    assert orjson.loads(rendered.bodies[fingerprint])["max_tokens"] == 2048  # type: ignore[index]
