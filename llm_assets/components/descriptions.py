"""What tells a stranger what the tables of an enrichment are: texts, columns, and of what each column is made."""

from collections.abc import Iterable, Mapping

import dagster as dg
import polars as pl

from llm_assets.components.about import About
from llm_assets.components.documents import documents_key
from llm_assets.components.metadata import column_lineage, column_schema
from llm_assets.enrichment import Enrichment, enriched_schema, failed_schema
from llm_assets.providers import caveat
from llm_assets.records import DOCUMENT_ID, Mode


def batches_text(enrichment: Enrichment) -> str:
    """What `<name>/batches` is."""
    name = enrichment.name
    return (
        f"Asks `{enrichment.model_name}` ({enrichment.provider}, {_way(enrichment)}) about every document of "
        f"`documents/{enrichment.documents}` that has no answer yet.\n\n"
        "Here is seen what is in flight, since when and until about when, what was sent in which wave, and what of the "
        "budgets is taken. The sensor `batch_completion` brings results home and sends again what is worth it: "
        f"`{name}/enriched` and `{name}/failed` appear when every document has its outcome. Materializing this again "
        f"sends only what is worth sending again, and releases a partition that is held.{_warning(enrichment.provider)}"
    )


def enriched_text(enrichment: Enrichment, about: About) -> str:
    """What `<name>/enriched` is."""
    name = enrichment.name
    return about.text(
        "A row for each document that was answered.",
        f"A row for each document of `documents/{enrichment.documents}` that `{enrichment.model_name}` "
        f"({enrichment.provider}, {_way(enrichment)}) has answered, with what it cost; the other documents are in "
        f"`{name}/failed`. A partition appears when all of its documents have an outcome: until then "
        f"`{name}/batches` shows what is in flight.",
    )


def failed_text(enrichment: Enrichment) -> str:
    """What `<name>/failed` is."""
    name = enrichment.name
    return (
        f"The documents of `documents/{enrichment.documents}` that have no row in `{name}/enriched`, a row each, with "
        f"`reason`, `message` and `attempts` ({enrichment.attempts} at most).\n\nWhat is not `permanent` is asked once "
        f"more when `{name}/batches` is materialized with `retry_failed: true`; for the rest, change the document or "
        "the prompt."
    )


def _warning(provider: str) -> str:
    known = caveat(provider)
    return f" The provider {provider} is {known}." if known else ""


def _way(enrichment: Enrichment) -> str:
    return "in real time" if enrichment.mode is Mode.REALTIME else "in batches"


def lineage(enrichment: Enrichment, answers: Iterable[str] = ()) -> dg.TableColumnLineage:
    """Of what the columns of a table are made: those of an answer, of all that the prompt shows of a document."""
    table = documents_key(enrichment.documents)
    shown = [(table, name) for name in sorted(enrichment.prompt.variables)]
    kept = {name: [(table, name)] for name in (DOCUMENT_ID, *enrichment.keep)}
    return column_lineage(kept | dict.fromkeys(answers, shown))


def enriched_columns(enrichment: Enrichment, documents: Mapping[str, pl.DataType]) -> dg.TableSchema:
    """The columns of `<name>/enriched`; `documents` are those of the documents."""
    answer = enrichment.output.frame_schema
    columns = enriched_schema(
        enrichment.keep, answer, documents, has_evidence=bool(enrichment.evidence), is_cut=enrichment.cuts
    )
    # Where the UI does not draw the lineage of columns, it can be read here.
    asked = f"Answered of `{', '.join(sorted(enrichment.prompt.variables))}` of `documents/{enrichment.documents}`."
    said = enrichment.output.json_schema["properties"]
    answers = {name: f"{said.get(name, {}).get('description', '')} {asked}".strip() for name in answer}
    return column_schema(columns, _DESCRIPTIONS | _kept(enrichment) | answers)


def failed_columns(enrichment: Enrichment, documents: Mapping[str, pl.DataType]) -> dg.TableSchema:
    """The columns of `<name>/failed`."""
    return column_schema(failed_schema(enrichment.keep, documents), _DESCRIPTIONS | _kept(enrichment))


def _kept(enrichment: Enrichment) -> dict[str, str]:
    return dict.fromkeys(enrichment.keep, f"As `documents/{enrichment.documents}` has it.")


_DESCRIPTIONS = {
    "document_id": "The document's id.",
    "unsupported": "The fields declared as evidence whose values are not in the document's text; null: not looked for.",
    "text_was_cut": "Whether the text was longer than `max_chars`, so that only its beginning was asked about.",
    "model": "The model that answered, in the provider's words.",
    "wave": "The round of sending that brought the answer; 0 when another partition had it already.",
    "input_tokens": "Tokens read for this document, over all attempts; 0 where another document shares the request.",
    "output_tokens": "Tokens written for this document, over all attempts.",
    "cache_read_tokens": "Of the input tokens, those that the provider read from its prompt cache.",
    "cache_write_tokens": "Of the input tokens, those that the provider wrote to its prompt cache.",
    "cost_usd": "US dollars that the document cost, over all attempts; 0 where another one or partition paid.",
    "fingerprint": "Identifies the request: provider, endpoint, model, prompt, parameters and schema.",
    "kind": "What the failure means: transient, repairable, permanent.",
    "reason": "Why there is no answer.",
    "provider_type": "The provider's own name for it.",
    "message": "The provider's own words, or ours where nothing was sent.",
    "attempts": "How often it was tried.",
}
