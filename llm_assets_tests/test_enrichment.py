"""An enrichment's declaration: what fits together, and how each thing that does not is told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from llm_assets.enrichment import ENRICHED_COLUMNS, Enrichment
from llm_assets.errors import DeclarationError
from llm_assets.output_schema import OutputSchema
from llm_assets.prompt import Prompt
from llm_assets.providers import NAMES, get_provider
from llm_assets.records import ShardLimits
from llm_assets_tests.platforms import MODELS

COLUMNS = ("document_id", "text", "title", "country")
OUTPUT = OutputSchema.from_fields("review", {"label": "string"}, "reviews.yaml")
GOOD = Enrichment(
    name="reviews",
    documents="tickets",
    provider="anthropic",
    model_name="claude-haiku-5-5",
    prompt=Prompt.parse("{{ title or '' }} {{ text }}", "prompt.md"),
    output=OUTPUT,
    keep=("country",),
    source="reviews.yaml",
)
UNIONS = OutputSchema.from_fields("r", {f"f{n}": {"type": "string", "optional": True} for n in range(40)}, "r.yaml")
HAS = "tickets has document_id, text, title, country"
DECLARE = "other columns must be declared under `columns:` of the documents"
NAME_RULE = "must begin with a lower-case letter and have at most 60 lower-case letters, digits and underscores"


@pytest.mark.parametrize("provider", MODELS)
def test_a_good_declaration(provider: str) -> None:
    limits = ShardLimits(requests=10, bytes=1_000_000)
    replace(GOOD, provider=provider, model_name=MODELS[provider], limits=limits).check(COLUMNS)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"name": "Reviews"}, f"the name 'Reviews' {NAME_RULE}"),
        ({"name": ""}, f"the name '' {NAME_RULE}"),
        ({"name": "r" * 61}, f"the name '{'r' * 61}' {NAME_RULE}"),
        ({"name": "a/b"}, f"the name 'a/b' {NAME_RULE}"),
        ({"model_name": " "}, "model_name is empty; write the provider's name of a model"),
        (
            {"provider": "antropic"},
            f"the provider 'antropic' is unknown; there are {', '.join(NAMES)}; did you mean anthropic?",
        ),
        ({"provider": "x"}, f"the provider 'x' is unknown; there are {', '.join(NAMES)}"),
        ({"max_tokens": 0}, "max_tokens is 0; it must be at least 1"),
        ({"max_tokens_ceiling": 1000}, "max_tokens_ceiling 1000 is below max_tokens 1024"),
        ({"attempts": 0}, "attempts is 0; it must be between 1 and 20"),
        ({"attempts": 21}, "attempts is 21; it must be between 1 and 20"),
        ({"failure_rate_max": 5}, "failure_rate_max is 5; it is a share between 0 and 1"),
        ({"failure_rate_max": float("nan")}, "failure_rate_max is nan; it is a share between 0 and 1"),
        (
            {"request_files_days": -1},
            "request_files_days is -1; it must be between 0 (deleted when the partition is published) and 36500",
        ),
        (
            {"request_files_days": float("inf")},
            "request_files_days is inf; it must be between 0 (deleted when the partition is published) and 36500",
        ),
        (
            {"limits": ShardLimits(requests=0, bytes=1000)},
            "limits.requests is 0; anthropic takes between 1 and 100000",
        ),
        (
            {"limits": ShardLimits(requests=100_001, bytes=1000)},
            "limits.requests is 100001; anthropic takes between 1 and 100000",
        ),
        ({"prompt": Prompt.parse("{{ body }}", "p.md")}, f"the prompt p.md uses 'body', but {HAS}; {DECLARE}"),
        ({"keep": ("county",)}, f"keep names the column 'county', but {HAS}; {DECLARE}"),
        ({"keep": ("document_id",)}, "keep names 'document_id', which is a built-in column of the answers"),
        ({"keep": ("country", "country")}, "keep names 'country' more than once"),
        (
            {"output": OutputSchema.from_fields("r", {"country": "string"}, "r.yaml")},
            "the output field 'country' has the name of a column that is kept; rename one of them",
        ),
    ],
)
def test_bad_declaration(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        replace(GOOD, **changes).check(COLUMNS)
    assert str(caught.value) == f"reviews.yaml: {problem}"


@pytest.mark.parametrize("name", ENRICHED_COLUMNS)
def test_an_output_field_cannot_be_a_built_in_column(name: str) -> None:
    output = OutputSchema.from_fields("r", {name: "string"}, "r.yaml")
    with pytest.raises(DeclarationError, match=f"the output field '{name}' has the name of a built-in column"):
        replace(GOOD, output=output).check(COLUMNS)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"endpoint": "/v1/images"}, r"^reviews\.yaml: the endpoint '/v1/images' cannot be used: "),
        ({"params": {"model": "other"}}, r"^reviews\.yaml: the request cannot be built: params\.model"),
        ({"params": {"messages": []}}, r"^reviews\.yaml: the request cannot be built: params\.messages"),
        (
            {"output": UNIONS},
            r"^reviews\.yaml: anthropic cannot enforce the output schema: ",
        ),
    ],
    ids=["endpoint", "model", "messages", "40 unions"],
)
def test_what_the_provider_refuses_is_told(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(DeclarationError, match=problem):
        replace(GOOD, **changes).check(COLUMNS)


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(DeclarationError) as caught:
        replace(GOOD, name="R", attempts=0, keep=("x",), provider="x").check(COLUMNS)
    assert str(caught.value) == (
        "reviews.yaml: 4 problems\n"
        f"  - the name 'R' {NAME_RULE}\n"
        "  - attempts is 0; it must be between 1 and 20\n"
        f"  - keep names the column 'x', but {HAS}; {DECLARE}\n"
        f"  - the provider 'x' is unknown; there are {', '.join(NAMES)}"
    )


def test_the_task_is_what_all_requests_share() -> None:
    task = GOOD.task
    assert (task.model_name, task.max_tokens, task.schema, task.schema_name) == (
        "claude-haiku-5-5",
        1024,
        OUTPUT.json_schema,
        "review",
    )
    assert GOOD.task is task
    assert GOOD.task_with(4096) == replace(task, max_tokens=4096)


@pytest.mark.parametrize(("declared", "ceiling"), [(None, 4096), (1024, 1024), (9000, 9000)])
def test_ceiling(declared: int | None, ceiling: int) -> None:
    assert replace(GOOD, max_tokens_ceiling=declared).ceiling == ceiling


def test_limits_of_the_provider_itself_are_allowed() -> None:
    replace(GOOD, limits=get_provider("anthropic").dialect.limits).check(COLUMNS)
