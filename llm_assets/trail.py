"""What is told of the work while it is done: a line in the log for what has happened, a span for what takes time.

    collected enrichment=labels partition=2026-11-01 wave=1 shard=5f0c… provider=openai batch=batch_… requests=40 …

Lines go to the logger `llm_assets`, all of one form, to be found by any id in them. Spans are OpenTelemetry's, where
that is installed (`llm-assets[otel]`) and set up by whoever runs this; else there are none. Both hold ids and numbers,
and never a text, a prompt, an answer or a key.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from llm_assets.records import Plan, Shard

try:
    from opentelemetry import trace
except ImportError:
    _tracer = None
else:
    _tracer = trace.get_tracer("llm_assets")

Fact = str | int | float | bool
_log = logging.getLogger("llm_assets")
_log.addHandler(logging.NullHandler())  # who wants the lines says where to; else Python writes warnings over a terminal
# In a span, names of ours do not meet those of others.
_PREFIX = "llm_assets."


def of_partition(enrichment: str, partition: str) -> dict[str, Fact]:
    """What lines and spans about a partition begin with."""
    return {"enrichment": enrichment, "partition": partition}


def of_plan(plan: Plan) -> dict[str, Fact]:
    """What lines and spans about a plan begin with."""
    return of_partition(plan.enrichment, plan.partition) | {"wave": plan.wave, "plan": plan.plan_id}


def of_shard(shard: Shard) -> dict[str, Fact]:
    """What lines and spans about a shard begin with."""
    facts = of_partition(shard.enrichment, shard.partition) | {"wave": shard.wave, "shard": shard.key}
    batch: dict[str, Fact] = {"batch": shard.batch_id} if shard.batch_id else {}
    return facts | {"provider": shard.provider} | batch | {"requests": shard.requests}


def tell(event: str, level: int = logging.INFO, /, **facts: Fact) -> None:
    """Log what has happened, and write it on the span that it happened in."""
    _log.log(level, "%s", " ".join((event, *(f"{name}={_value(fact)}" for name, fact in facts.items()))))
    if _tracer is not None:
        _mark(trace.get_current_span(), facts)


@contextmanager
def span(step: str, /, **facts: Fact) -> Iterator[None]:
    """What takes time. An error is told by its type only: the words of one that nobody foresaw may quote anything."""
    try:
        if _tracer is None:
            yield
        else:
            with _tracer.start_as_current_span(
                f"{_PREFIX}{step}", record_exception=False, set_status_on_exception=False
            ) as opened:
                _mark(opened, facts)
                try:
                    yield
                except Exception as error:
                    opened.set_status(trace.StatusCode.ERROR, type(error).__name__)
                    raise
    except Exception as error:
        tell(f"{step}-failed", logging.WARNING, **facts, error=type(error).__name__)
        raise


def _mark(opened: trace.Span, facts: dict[str, Fact]) -> None:
    opened.set_attributes({f"{_PREFIX}{name}": fact for name, fact in facts.items()})


def _value(fact: Fact) -> str:
    """As it is, or quoted where a blank or a quote would make two of it, or what it holds is not for a terminal."""
    if isinstance(fact, float):
        return f"{fact:.6f}"
    told = str(fact)
    plain = told.isprintable()
    return (
        told if told and plain and not any(mark in told for mark in ' "=') else json.dumps(told, ensure_ascii=not plain)
    )
