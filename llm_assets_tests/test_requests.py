"""Documents × enrichment → requests: identity, deduplication, and documents that cannot be asked about."""

import hashlib
from dataclasses import replace
from typing import Any

import orjson
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_assets.enrichment import Enrichment
from llm_assets.output_schema import OutputSchema
from llm_assets.prompt import Prompt
from llm_assets.providers import get_provider
from llm_assets.records import Amendment, Fingerprint, Reason
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
    amendments: dict[Fingerprint, Amendment] | None = None,
) -> RenderedSlice:
    dialect = get_provider(enrichment.provider, enrichment.endpoint).dialect
    return Renderer(enrichment, dialect, bytes_max, amendments).render(documents)


def fingerprints(enrichment: Enrichment = ENRICHMENT, documents: pl.DataFrame = DOCUMENTS) -> list[str]:
    return render(enrichment, documents).plan["fingerprint"].to_list()


def test_identical_documents_share_one_request() -> None:
    rendered = render()
    one, other, same = rendered.plan["fingerprint"]
    assert one == same != other
    assert set(rendered.bodies) == {one, other}


@pytest.mark.parametrize(
    "prompt",
    [
        pytest.param("{{ text }}", id="text alone"),
        pytest.param("system:\n100 % {{ title }}\n\nuser:\n%b {{ text }}", id="text in a system turn"),
        pytest.param("system:\nS\n\nuser:\n{{ text }}\n\nassistant:\nA\n\nuser:\n{{ title }}{{ text }}", id="turns"),
        pytest.param("system:\n{{ title }}\n\nuser:\nWell?", id="text nowhere"),
    ],
)
@pytest.mark.parametrize("endpoint", ["/v1/messages", "/v1/responses", "/v1/chat/completions"])
@given(text=st.text(min_size=1), title=st.text(min_size=1), model=st.text(min_size=1))
@settings(max_examples=50, deadline=None)
def test_a_body_is_what_the_dialect_writes_to_the_byte(
    prompt: str, endpoint: str, text: str, title: str, model: str
) -> None:
    provider = "anthropic" if endpoint == "/v1/messages" else "openai"
    declared = Prompt.parse(prompt, "p")
    enrichment = replace(ENRICHMENT, provider=provider, endpoint=endpoint, prompt=declared, model_name=model)
    rendered = render(enrichment, pl.DataFrame({"document_id": ["1"], "text": [text], "title": [title]}))
    if rendered.plan["reason"].item() is not None:
        return
    dialect = get_provider(provider, endpoint).dialect
    body = orjson.dumps(dialect.body(enrichment.task, declared.render({"text": text, "title": title})))
    fingerprint = hashlib.blake2b(f"{provider}\n{endpoint}\n".encode() + body, digest_size=16).hexdigest()
    assert rendered.bodies == {fingerprint: body}


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


def amended(amendment: Amendment, enrichment: Enrichment = ENRICHMENT, bytes_max: int = 1_000_000) -> Any:
    """The body of the first document's request when it is asked differently; the second stays as it was."""
    first, second, _ = fingerprints(enrichment)
    rendered = render(enrichment, bytes_max=bytes_max, amendments={Fingerprint(first): amendment})
    assert rendered.plan["fingerprint"].to_list() == fingerprints(enrichment)
    assert rendered.bodies[Fingerprint(second)] == render(enrichment).bodies[Fingerprint(second)]
    return orjson.loads(rendered.bodies[Fingerprint(first)])


def test_more_room_keeps_the_fingerprint_and_changes_the_body() -> None:
    assert amended(Amendment(2048))["max_tokens"] == 2048


TOLD = {"role": "user", "content": "This answer was refused: no JSON. Answer again; obey the schema."}
TOLD_EMPTY = {"role": "user", "content": "An empty answer was refused: no JSON. Answer again; obey the schema."}


@pytest.mark.parametrize(
    ("provider", "endpoint", "turns"),
    [
        pytest.param("anthropic", None, "messages", id="anthropic"),
        pytest.param("openai", "/v1/responses", "input", id="openai"),
        pytest.param("openai", "/v1/chat/completions", "messages", id="openai-chat"),
    ],
)
@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        pytest.param("Sure!", [{"role": "assistant", "content": "Sure!"}, TOLD], id="with-its-answer"),
        pytest.param("", [TOLD_EMPTY], id="empty-answer"),
        pytest.param(" \n", [TOLD_EMPTY], id="blank-answer"),
    ],
)
def test_a_refused_answer_is_shown_with_its_error_after_the_prompt(
    provider: str, endpoint: str | None, turns: str, answer: str, expected: list[dict[str, str]]
) -> None:
    enrichment = replace(ENRICHMENT, provider=provider, endpoint=endpoint)
    declared = orjson.loads(render(enrichment).bodies[Fingerprint(fingerprints(enrichment)[0])])
    body = amended(Amendment(ENRICHMENT.max_tokens, "no JSON", answer), enrichment)
    assert body == declared | {turns: declared[turns] + expected}


def test_an_answer_that_was_cut_and_one_that_was_refused_change_one_body() -> None:
    body = amended(Amendment(2048, "no JSON", "Sure!"))
    assert (body["max_tokens"], len(body["messages"])) == (2048, 3)


def test_a_refused_answer_that_is_too_much_for_a_shard_is_left_out() -> None:
    body = amended(Amendment(2048, "no JSON", "x" * 20_000), bytes_max=10_000)
    assert (body["max_tokens"], len(body["messages"])) == (2048, 1)


def test_a_refused_answer_is_not_in_what_an_amendment_shows_of_itself() -> None:
    assert "secret" not in repr(Amendment(1, "no JSON", "a secret"))
