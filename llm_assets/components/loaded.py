"""What this process has loaded, by name: for sensors and commands, which get no asset to ask."""

from __future__ import annotations

from llm_assets.documents import DocumentSource
from llm_assets.enrichment import Enrichment
from llm_assets.erasure import Made

DECLARED: dict[str, Enrichment] = {}
SOURCES: dict[str, DocumentSource] = {}
# Tables of documents that are made of others here.
MADE: dict[str, Made] = {}
# Evaluations and judgements, and the tables of documents that they are about.
COMPARED: dict[str, frozenset[str]] = {}
# Provider and model of prices and quotas of the project's own.
PRICED: set[tuple[str, str]] = set()
