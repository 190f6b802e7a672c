"""Documents erased everywhere by their ids: from every table and file of the store that holds anything of them.

    ids ──▶ what is put together from them ──▶ found (reads only) ──▶ erased, the last made first ──▶ found: nothing

Tables are rewritten whole and take the place of the old. What finds a row is erased after it: plans lead to
fingerprints, texts to what was made of them. So whoever is killed runs it again. The ledger knows no documents, and
keeps its counts.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import chain

import polars as pl

from llm_assets.errors import LLMAssetsError
from llm_assets.platform import Platform
from llm_assets.records import DOCUMENT_ID, IN_FLIGHT, Mode, Plan, Shard, ShardState
from llm_assets.retention import PLANNING_MAX, PROVIDERS_KEEP
from llm_assets.store.contents import Holds, Kept

_BY_ID = (Holds.DOCUMENTS, Holds.ENRICHED, Holds.FAILED, Holds.PLAN, Holds.COMPARED)
_BY_FINGERPRINT = (Holds.REQUESTS, Holds.RESULTS)
_FILES = (Holds.REQUEST_FILE, Holds.JOURNAL)
_FOLDERS = ("documents", "enrichments", "evaluations")
_FINGERPRINT = "fingerprint"
# Items and parts are called `<id>#<number>`, and those of theirs `<id>#<number>#<number>`.
_MADE_OF = r"#\d+$"
# Of tables that nobody declares any more.
_GENERATIONS = 3


@dataclass(frozen=True, slots=True)
class Made:
    """Documents that are made of a `table` of an enrichment, or of other documents; `group_by` puts texts together."""

    documents: str
    enrichment: str | None
    table: str
    group_by: str | None


@dataclass(frozen=True, slots=True)
class Lineage:
    """What is declared: which documents an enrichment asks about, and an evaluation compares, and which are made of
    others.
    """

    asked: Mapping[str, str]
    compared: Mapping[str, Collection[str]]
    made: Mapping[str, Made]

    @property
    def documents(self) -> frozenset[str]:
        """All that are asked about, compared or made of others."""
        return frozenset((*self.asked.values(), *chain(*self.compared.values()), *self.made))

    def family(self, documents: str) -> frozenset[str]:
        """These documents and all that are made of them."""
        found = {documents}
        while more := {name for name, made in self.made.items() if made.documents in found} - found:
            found |= more
        return frozenset(found)

    def documents_of(self, kept: Kept) -> frozenset[str]:
        """Which documents a file is about; none where nothing that is declared says so."""
        if kept.holds is Holds.DOCUMENTS:
            return frozenset({kept.name})
        if kept.holds is Holds.COMPARED:
            return frozenset(self.compared.get(kept.name, ()))
        return frozenset({self.asked[kept.name]} if kept.name in self.asked else ())

    def generations(self, kept: Kept) -> int:
        """How often what a file is about may have been made of other documents: never, where it is read from files,
        whose ids are anybody's.
        """
        read = (self.documents | {made.documents for made in self.made.values()}) - self.made.keys()
        about = self.documents_of(kept)
        return 0 if about and about <= read else max(_GENERATIONS, len(self.made))


@dataclass(frozen=True, slots=True)
class InFlight:
    """A batch that a provider has, and that asks about documents which are to be erased."""

    enrichment: str
    partition: str
    key: str
    batch_id: str | None


@dataclass(slots=True)
class Erasure:
    """What is found of documents: `rows` by what holds them and whose it is, `files` likewise, which go as a whole.

    `in_flight` is in the way. `at_providers` counts the batches, by provider, that the providers may still keep.
    """

    rows: Counter[tuple[Holds, str]] = field(default_factory=Counter)
    files: Counter[tuple[Holds, str]] = field(default_factory=Counter)
    in_flight: list[InFlight] = field(default_factory=list)
    at_providers: Counter[str] = field(default_factory=Counter)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left."""
        return not self.rows and not self.files


class DocumentsInFlight(LLMAssetsError):
    """Documents that are to be erased are with a provider: their answers would come back."""


def find(platform: Platform, ids: Collection[str], lineage: Lineage, documents: str | None = None) -> Erasure:
    """What the store holds of documents with these ids, and of what was made of them. Changes nothing.

    `documents` names the table that they are of; without it they are looked for in all.
    """
    return _found(platform, lineage, _wanted(platform, ids, lineage, documents)).told


def erase(
    platform: Platform, ids: Collection[str], lineage: Lineage, documents: str | None = None, *, operator: str
) -> Erasure:
    """Erase what `find` finds, and return that. The ledger's decisions say who did, and how much it was.

    Raises DocumentsInFlight, and changes nothing, while batches ask about them; PlanConflict or StoreError when a run
    was faster, and LLMAssetsError when one brought them back: do it again.
    """
    wanted = _wanted(platform, ids, lineage, documents)
    told = _found(platform, lineage, wanted).told
    if told.in_flight:
        raise DocumentsInFlight(_in_the_way(told.in_flight))
    for each in reversed(wanted):
        _erase(platform, _found(platform, lineage, [each]))
    for problem in platform.store.files.tidy(_FOLDERS, platform.clock() - PLANNING_MAX):
        raise LLMAssetsError(f"{problem}: a killed process left it, and it may hold anybody's text; delete it")
    if not _found(platform, lineage, wanted).told.is_empty:
        raise LLMAssetsError(
            "a run read these documents before they were erased, and wrote them again: see that nothing materializes "
            "them, and run this once more"
        )
    if not told.is_empty:
        words = f"erased {len(set(ids)):,} documents: {told.rows.total():,} rows, {told.files.total():,} files"
        platform.ledger.decided("forget", words, batch_id=None, operator=operator)
    return told


def _in_the_way(batches: Sequence[InFlight]) -> str:
    first = batches[0]
    more = f" and {len(batches) - 1:,} more" if len(batches) > 1 else ""
    return (
        f"nothing was erased: batch {first.batch_id or first.key} of {first.enrichment} {first.partition}{more} asks "
        "about these documents and is with the provider. Let it be collected (the sensor does, `llm-assets run` does), "
        "or settle it with `llm-assets reconcile`; then run this again"
    )


# -- what is looked for


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Ids, of documents of some `names` or of all, in one `partition` or in all."""

    ids: frozenset[str]
    names: frozenset[str] | None
    partition: str | None = None

    def covers(self, kept: Kept, lineage: Lineage) -> bool:
        right_partition = self.partition is None or kept.partition in ("", self.partition)
        return right_partition and (self.names is None or not self.names.isdisjoint(lineage.documents_of(kept)))

    def rows(self, kept: Kept, lineage: Lineage) -> pl.Expr:
        """Which rows of a table are of these documents, or of items and parts of theirs."""
        name, found = pl.col(DOCUMENT_ID), pl.lit(False)
        for _ in range(1 + lineage.generations(kept)):
            found |= name.is_in(list(self.ids)).fill_null(False)
            name = name.str.replace(_MADE_OF, "")
        if self.partition is not None and kept.holds is Holds.COMPARED:
            found &= pl.col("partition") == self.partition
        return found


def _wanted(platform: Platform, ids: Collection[str], lineage: Lineage, documents: str | None) -> list[_Wanted]:
    """What the ids are of, then the documents that were put together from it, each before what is made of it."""
    contents = list(platform.store.contents())
    grouped = [
        (kept, name, made.group_by)
        for name, made in lineage.made.items()
        for kept in contents
        if made.group_by and _is_upstream(kept, made)
    ]
    found = [_Wanted(frozenset(ids), lineage.family(documents) if documents else None)]
    for wanted in found:  # which grows: what was put together may itself be put into others
        for kept, name, group_by in grouped:
            if wanted.covers(kept, lineage):
                groups = _groups(platform, kept, wanted.rows(kept, lineage), group_by)
                more = _Wanted(groups, lineage.family(name), kept.partition)
                if groups and more not in found:
                    found.append(more)
    return found


def _is_upstream(kept: Kept, made: Made) -> bool:
    holds = Holds.DOCUMENTS if made.enrichment is None else Holds(made.table)
    return (kept.holds, kept.name) == (holds, made.enrichment or made.documents)


def _groups(platform: Platform, kept: Kept, rows: pl.Expr, by: str) -> frozenset[str]:
    """The documents that texts of these rows were put into, by their ids."""
    table = platform.store.scan(kept.path)
    if by not in table.collect_schema():
        return frozenset()
    groups = table.filter(rows).select(pl.col(by).cast(pl.String)).drop_nulls().unique().collect()
    return frozenset(groups[by])


# -- what is found


@dataclass(slots=True)
class _Found:
    """The tables to sift, each with which of its rows go; by partition of an enrichment what its shards hold."""

    told: Erasure = field(default_factory=Erasure)
    by_id: dict[Kept, pl.Expr] = field(default_factory=dict)
    partitions: dict[tuple[str, str], _Partition] = field(default_factory=dict)


@dataclass(slots=True)
class _Partition:
    """Of a partition of an enrichment: tables of shards to sift by `fingerprints`, files to delete, shards to take
    back.
    """

    fingerprints: pl.Series
    tables: list[Kept] = field(default_factory=list)
    files: list[Kept] = field(default_factory=list)
    planned: list[Shard] = field(default_factory=list)


def _found(platform: Platform, lineage: Lineage, wanted: Sequence[_Wanted]) -> _Found:
    found, contents = _Found(), list(platform.store.contents())
    for kept in contents:
        covering = [each for each in wanted if each.covers(kept, lineage)] if kept.holds in _BY_ID else []
        if covering:
            rows = pl.any_horizontal(each.rows(kept, lineage) for each in covering)
            if count := _count(platform, kept, rows):
                found.by_id[kept] = rows
                found.told.rows[kept.holds, kept.name] += count
    by_partition: dict[tuple[str, str], list[Kept]] = defaultdict(list)
    for kept in contents:
        by_partition[kept.name, kept.partition].append(kept)
    planned = {(kept.name, kept.partition) for kept in found.by_id if kept.holds is Holds.PLAN}
    for name, partition in sorted(planned):
        there = by_partition[name, partition]
        found.partitions[name, partition] = _found_in(platform, found, there, name, partition)
    return found


def _found_in(platform: Platform, found: _Found, there: Sequence[Kept], name: str, partition: str) -> _Partition:
    plans = [kept for kept in there if kept.holds is Holds.PLAN]
    part = _Partition(_only_theirs(platform, plans, found.by_id))
    keys: set[str] = set()
    known = {kept.key for kept in there if kept.holds is Holds.REQUESTS}
    for kept in there:
        if kept.holds in _BY_FINGERPRINT and (count := _count(platform, kept, _is_one_of(part.fingerprints))):
            part.tables.append(kept)
            keys.add(kept.key)
            found.told.rows[kept.holds, name] += count
    shards = {shard.key: shard for shard in platform.ledger.shards(name, partition)}
    for kept in there:
        # Whose requests nobody wrote down is what a killed run left.
        if kept.holds in _FILES and (kept.key in keys or kept.key not in known | shards.keys()):
            part.files.append(kept)
            found.told.files[kept.holds, name] += 1
    for shard in (shards[key] for key in keys & shards.keys()):
        if shard.state in IN_FLIGHT:
            found.told.in_flight.append(InFlight(name, partition, shard.key, shard.batch_id))
        elif shard.state is ShardState.PLANNED:
            part.planned.append(shard)
        elif _may_be_kept(platform, shard):
            found.told.at_providers[shard.provider] += 1
    return part


def _may_be_kept(platform: Platform, shard: Shard) -> bool:
    """Whether a provider may still have a shard's batch."""
    since = platform.clock() - PROVIDERS_KEEP - timedelta(days=1)
    sent = shard.mode is Mode.BATCH and shard.submitted_at is not None and shard.submitted_at > since
    return sent and shard.forgotten_at is None


def _only_theirs(platform: Platform, plans: Sequence[Kept], erased: Mapping[Kept, pl.Expr]) -> pl.Series:
    """The requests of a partition that no other document shares."""
    theirs = [_fingerprints(platform, kept, erased[kept]) for kept in plans if kept in erased]
    wanted = pl.concat(theirs).unique()
    others = [
        _fingerprints(platform, kept, _is_one_of(wanted) & ~erased.get(kept, pl.lit(False))).unique() for kept in plans
    ]
    return wanted.filter(~wanted.is_in(pl.concat(others).to_list()))


def _fingerprints(platform: Platform, kept: Kept, rows: pl.Expr) -> pl.Series:
    return platform.store.scan(kept.path).filter(rows).select(_FINGERPRINT).collect()[_FINGERPRINT].drop_nulls()


def _is_one_of(fingerprints: pl.Series) -> pl.Expr:
    return pl.col(_FINGERPRINT).is_in(fingerprints.to_list()).fill_null(False)


def _count(platform: Platform, kept: Kept, rows: pl.Expr) -> int:
    return int(platform.store.scan(kept.path).filter(rows).select(pl.len()).collect().item())


# -- what is done


def _erase(platform: Platform, found: _Found) -> None:
    """Documents first, so that nothing is planned from them any more; plans last, which lead to all the rest."""
    for kept in _of(found, Holds.DOCUMENTS, Holds.COMPARED):
        _sift(platform, kept, found.by_id[kept])
    for (name, partition), part in found.partitions.items():
        _take_back(platform, name, partition, part)
        for kept in part.files:
            platform.store.files.delete(kept.path)
            if kept.holds is Holds.REQUEST_FILE:
                platform.ledger.swept(kept.key)
        for kept in part.tables:
            _sift(platform, kept, _is_one_of(part.fingerprints))
        _replace_plan(platform, found, name, partition)
    for kept in _of(found, Holds.ENRICHED, Holds.FAILED, Holds.PLAN):
        if platform.store.files.modified(kept.path) == kept.modified:  # it did not go with its plan
            _sift(platform, kept, found.by_id[kept])


def _of(found: _Found, *holds: Holds) -> Iterator[Kept]:
    return (kept for kept in found.by_id if kept.holds in holds)


def _sift(platform: Platform, kept: Kept, erased: pl.Expr) -> None:
    with platform.store.sifting(kept, ~erased):
        pass


def _take_back(platform: Platform, name: str, partition: str, part: _Partition) -> None:
    """What is not sent yet is planned anew without these documents, by whoever materializes `batches` next."""
    plan = platform.ledger.plan(name, partition)
    if plan is not None and part.planned:
        due = plan.pending + sum(shard.requests for shard in part.planned)
        platform.ledger.take_back(plan, [shard.key for shard in part.planned], pending=due)


def _replace_plan(platform: Platform, found: _Found, name: str, partition: str) -> None:
    """Put a plan without these documents into the place of the current one, and so the tables that were published."""
    plan = platform.ledger.plan(name, partition)
    of_it = {kept.path: kept for kept in found.by_id if (kept.name, kept.partition) == (name, partition)}
    if plan is None or plan.path not in of_it:
        return
    store, old = platform.store, of_it[plan.path]
    left = ~found.by_id[old]
    new = _without(platform, plan, left)
    with ExitStack() as files:
        files.enter_context(store.sifting(old, left, new.path))
        for kept in of_it.values():
            if kept.holds in (Holds.ENRICHED, Holds.FAILED):
                files.enter_context(store.sifting(kept, ~found.by_id[kept]))
        with platform.ledger.rewriting(new, plan):
            files.close()  # all are whole, and take their places now
    store.files.delete(old.path)


def _without(platform: Platform, plan: Plan, left: pl.Expr) -> Plan:
    """The plan of the documents that are left. What it was made from is not there any more."""
    counts = platform.store.scan(plan.path).filter(left).select(pl.len(), pl.col(_FINGERPRINT).drop_nulls().n_unique())
    documents, requests = counts.collect().row(0)
    plan_id = platform.new_key()
    path = platform.store.plan(plan.enrichment, plan.partition, plan_id)
    return replace(plan, plan_id=plan_id, path=path, inputs="", documents=documents, requests=requests)
