"""The component `Enrichment`: a declaration in YAML, checked, → an `llm_assets.enrichment.Enrichment` and its assets.

In Python, without YAML, `enrichment_assets.enrichment_definitions` makes the same assets of one.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from llm_assets.components.about import About
from llm_assets.components.declarations import Dollars, InFile, declared_in
from llm_assets.components.documents import find_documents
from llm_assets.components.enrichment_assets import enrichment_definitions
from llm_assets.components.scaffolding import EnrichmentScaffolder
from llm_assets.components.spending import Spending, spending_of
from llm_assets.embedding import Embedding
from llm_assets.enrichment import NO_LIMIT, Output, enriched_schema, failed_schema
from llm_assets.enrichment import Enrichment as Declared
from llm_assets.errors import DeclarationError
from llm_assets.output_schema import OutputSchema
from llm_assets.prompt import Prompt
from llm_assets.records import Mode, ShardLimits
from llm_assets.text_limit import MARK, TextLimit, TooLong


class Limits(dg.Model, dg.Resolvable):
    """The most that one batch may hold, below the provider's own limits."""

    requests: int | None = None
    bytes: int | None = None


class Vector(dg.Model, dg.Resolvable):
    """An answer that is a vector: how many dimensions it has."""

    dimensions: int


class BudgetOfEnrichment(dg.Model, dg.Resolvable):
    """The most that may be spent, in US dollars: on a partition, and on what is sent in a day (UTC)."""

    partition_usd: Dollars | None = None
    day_usd: Dollars | None = None


@dg.scaffold_with(EnrichmentScaffolder)
class Enrichment(InFile, About):
    """Asks a model the same question about every document of a table, through a provider's batch API.

    `prompt` names a file beside the declaration: turns under `system:`, `user:` and `assistant:` lines, in Jinja
    syntax, with the documents' columns as variables. The answer's form is `output` (fields with types, enums and
    descriptions), `output_class` (the import path of a Pydantic model) or `embedding` (a vector of the text, or of what
    a prompt makes of it). With `follow` a partition is sent by itself when its documents were materialized.
    """

    name: str
    documents: str
    provider: str
    model_name: str
    prompt: str | None = None
    output: Mapping[str, Any] | None = None
    output_class: str | None = None
    embedding: Vector | None = None
    max_chars: int | None = None
    too_long: str = TooLong.REFUSE.value
    cut_mark: str | None = None
    max_tokens: int = 1024
    max_tokens_ceiling: int | None = None
    attempts: int = 3
    endpoint: str | None = None
    params: Mapping[str, Any] = {}
    keep: Sequence[str] = ()
    limits: Limits | None = None
    failure_rate_max: float = 0.05
    hold_above: float = 0.5
    deadline_hours: float = 26
    request_files_days: float = 30
    delete_at_provider: bool = False
    budget: BudgetOfEnrichment = BudgetOfEnrichment()
    reuse_days: float = 30
    prompt_cache: bool = True
    evidence: Sequence[str] = ()
    mode: str = "batch"
    rescue_after_hours: float | None = None
    realtime_requests: int | None = None
    service_tier: str | None = None
    nightly: str | None = None
    fresh_by: str | None = None
    follow: bool = False

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """The assets `<name>/batches`, `<name>/enriched` and `<name>/failed`, checked against their documents."""
        folder = declared_in(context)
        declared = self.declared(folder, spending_of(context))
        table = find_documents(context, self.documents, declared.source)
        if self.nightly is not None and isinstance(table.partitions, dg.DynamicPartitionsDefinition):
            raise DeclarationError(
                declared.source,
                f"nightly is for days, but {self.documents} has a partition a file; write `follow: true`",
            )
        return enrichment_definitions(
            declared,
            table,
            table.partitions,
            follows=self.follow or table.is_derived,
            nightly=self.nightly,
            fresh_by=self.fresh_by,
            about=self.about,
        )

    def declared(self, folder: Path, spending: Spending | None = None) -> Declared:
        """The enrichment that this declares; `folder` holds the declaration and the prompt."""
        source = str(folder / "defs.yaml")
        spending = spending or Spending()
        price = spending.declared(source).get((self.provider, self.model_name))
        in_real_time = self.mode == Mode.REALTIME or self.rescue_after_hours is not None
        if in_real_time and self.service_tier is None:  # which is at the batch price
            spending.check_standard(source, self.provider, self.model_name)
        return Declared(
            name=self.name,
            documents=self.documents,
            provider=self.provider,
            model_name=self.model_name,
            prompt=self._prompt(folder, source),
            output=self._output(source),
            max_tokens=1 if self.embedding else self.max_tokens,  # of a vector nothing is written
            max_tokens_ceiling=self.max_tokens_ceiling,
            attempts=self.attempts,
            endpoint=self.endpoint,
            params=dict(self.params),
            keep=tuple(self.keep),
            limits=_limits(self.limits),
            failure_rate_max=self.failure_rate_max,
            hold_above=self.hold_above,
            deadline_hours=self.deadline_hours,
            request_files_days=self.request_files_days,
            delete_at_provider=self.delete_at_provider,
            price=price,
            partition_budget_usd=_usd(self.budget.partition_usd),
            day_budget_usd=_usd(self.budget.day_usd),
            project_day_budget_usd=_usd(spending.day_usd),
            reuse_days=self.reuse_days,
            prompt_cache=self.prompt_cache,
            evidence=tuple(self.evidence),
            mode=_mode(self.mode, source),
            rescue_after_hours=self.rescue_after_hours,
            text_limit=self._text_limit(source),
            realtime_requests=self.realtime_requests,
            service_tier=self.service_tier,
            quotas=spending.quotas_of(self.provider, self.model_name),
            source=source,
        )

    def _prompt(self, folder: Path, source: str) -> Prompt:
        if self.prompt is not None:
            return _read_prompt(folder / self.prompt, source)
        if self.embedding is None:
            raise DeclarationError(source, "no `prompt` is declared; name a file beside this one, such as prompt.md")
        return Prompt.parse("user:\n{{ text }}", source)

    def _text_limit(self, source: str) -> TextLimit | None:
        if self.too_long not in list(TooLong):
            raise DeclarationError(source, f"too_long is {self.too_long!r}; there are {', '.join(TooLong)}")
        if self.max_chars is not None:
            return TextLimit(self.max_chars, TooLong(self.too_long), MARK if self.cut_mark is None else self.cut_mark)
        if self.too_long != TooLong.REFUSE or self.cut_mark is not None:
            raise DeclarationError(
                source, "too_long and cut_mark need `max_chars`: how long a text may be, in characters"
            )
        return None

    def _output(self, source: str) -> Output:
        forms = {"output": self.output, "output_class": self.output_class, "embedding": self.embedding}
        found = [name for name, form in forms.items() if form is not None]
        if len(found) != 1:
            told = " and ".join(found) or "none"
            raise DeclarationError(
                source, f"found {told} of `output`, `output_class`, `embedding`; declare one of them"
            )
        if self.embedding is not None:
            return Embedding(self.embedding.dimensions)
        if self.output_class is not None:
            return OutputSchema.from_class_path(self.output_class, source)
        return OutputSchema.from_fields(self.name, self.output or {}, source)

    def options(self, name: str, source: str) -> list[str] | None:
        """What a field of the answer may say; None for anything."""
        fields = self._output(self.declared_by(source)).json_schema["properties"]
        options: list[str] | None = fields.get(name, {}).get("enum")
        return options

    def tables(self, documents: Mapping[str, pl.DataType], source: str) -> dict[str, dict[str, pl.DataType]]:
        """The columns of `enriched` and of `failed`, asked about documents with these columns."""
        answer = self._output(self.declared_by(source)).frame_schema
        return {
            "enriched": enriched_schema(
                self.keep, answer, documents, has_evidence=bool(self.evidence), is_cut=self.too_long == TooLong.TRUNCATE
            ),
            "failed": failed_schema(self.keep, documents),
        }


def find_enrichment(context: dg.ComponentLoadContext, name: str, source: str) -> Enrichment:
    """The enrichment of this name. Raises DeclarationError, which names `source`, when none is declared."""
    there = {found.name: found for found in context.component_tree.get_all_components(Enrichment)}
    if name not in there:
        names = ", ".join(sorted(there)) or "none"
        raise DeclarationError(source, f"the enrichment {name!r} is not declared; there are: {names}")
    return there[name]


def _read_prompt(path: Path, source: str) -> Prompt:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DeclarationError(source, f"the prompt file {path} does not exist; write it, or mend `prompt`") from None
    except UnicodeDecodeError as error:
        raise DeclarationError(source, f"the prompt file {path} is not UTF-8 (byte {error.start})") from None
    return Prompt.parse(text, str(path))


def _mode(declared: str, source: str) -> Mode:
    try:
        return Mode(declared)
    except ValueError:
        raise DeclarationError(source, f"mode is {declared!r}; there are {', '.join(Mode)}") from None


def _usd(declared: float | None) -> float:
    return float("inf") if declared is None else declared


def _limits(limits: Limits | None) -> ShardLimits | None:
    if limits is None:
        return None
    return ShardLimits(
        requests=NO_LIMIT if limits.requests is None else limits.requests,
        bytes=NO_LIMIT if limits.bytes is None else limits.bytes,
    )
