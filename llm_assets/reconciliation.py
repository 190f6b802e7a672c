"""Claims whose outcome is unknown → what really happened, by asking the provider. Never by sending again.

A claim is unfinished when its run died, or when the reply to `create` did not arrive. Where the provider carries
metadata (OpenAI) the submission key in it finds the batch exactly. Where it does not (Anthropic), a batch of the
right size and age is adopted, and its results prove it by their custom_ids or disprove it (collection.py): a
disproved claim is as open as before, and the batch is free for the next. Only when there is no candidate, none that
another claim of the same size may have adopted in error, and the visibility delay is over, is the shard sent again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from llm_assets.answers import read_lines, same_outcome
from llm_assets.errors import (
    IllegalTransition,
    LedgerError,
    LLMAssetsError,
    NotThere,
    OutcomeUnknown,
    RequestRejected,
    SystemicError,
)
from llm_assets.history import sent_fingerprints
from llm_assets.platform import OTHER_ACCOUNT, Platform
from llm_assets.providers import Client
from llm_assets.records import Batch, BatchState, Reason, Shard, ShardState
from llm_assets.shards import fingerprint_of

# How far the provider's clock and ours may be apart.
CLOCK_SKEW = timedelta(hours=2)
# How long after a claim its batch may have been created: a slow upload, a machine that was asleep.
CREATION_WINDOW = timedelta(hours=24)
_PAGES_MAX = 50
# How far a provider's count of a batch's requests may be off, or a hundredth of them.
_WRONG_COUNT_MAX = 3


@dataclass(frozen=True, slots=True)
class Adopt:
    """The shard is in this batch."""

    batch: Batch


@dataclass(frozen=True, slots=True)
class Release:
    """The provider has nothing of this shard."""


@dataclass(frozen=True, slots=True)
class Wait:
    """The batch may still become visible."""


Verdict = Adopt | Release | Wait


def verdict(
    shard: Shard,
    batches: Sequence[Batch],
    taken: Collection[str],
    *,
    stamped: bool,
    rivals: bool,
    now: datetime,
    visibility_delay: timedelta,
) -> Verdict:
    """What became of an unfinished claim, from the provider's batches since then.

    `taken` are batch ids that belong to other shards, `stamped` says whether batches carry their submission key,
    `rivals` whether a claim of the same size holds a batch that it has not proven yet. Pure.
    """
    assert shard.claimed_at is not None
    if found := candidates(shard, batches, taken, stamped=stamped):
        return Adopt(found[-1])
    may_appear_until = max(shard.claimed_at + visibility_delay, shard.not_before or shard.claimed_at)
    return Release() if now >= may_appear_until and not rivals else Wait()


def candidates(shard: Shard, batches: Iterable[Batch], taken: Collection[str], *, stamped: bool) -> list[Batch]:
    """The batches that a claim may be in, in the order given. Pure; see `verdict`."""
    ours = [b for b in batches if b.batch_id not in taken and b.batch_id not in shard.past_batches]
    if stamped:
        return [batch for batch in ours if batch.stamp == shard.key or _of_its_file(shard, batch)]
    return [batch for batch in ours if batch.counts.total == shard.requests and _of_this_claim(shard, batch)]


def _of_its_file(shard: Shard, batch: Batch) -> bool:
    """Whether a batch was made of the file that was uploaded for the shard: not all servers give back the stamp."""
    return batch.stamp is None and batch.staged_id is not None and batch.staged_id == shard.staged_id


def _of_this_claim(shard: Shard, batch: Batch) -> bool:
    assert shard.claimed_at is not None
    earliest, latest = shard.claimed_at - CLOCK_SKEW, shard.claimed_at + CREATION_WINDOW
    return earliest <= batch.created_at <= latest


def reconcile_partition(platform: Platform, enrichment: str, partition: str) -> list[Verdict]:
    """Settle the unfinished claims of a partition, except those of runs that may be alive.

    Listing errors pass through: they are no proof that nothing was created.
    """
    unfinished = [
        shard
        for shard in platform.ledger.shards(enrichment, partition)
        if shard.state is ShardState.SUBMITTING and _take_over(platform, shard)
    ]
    return [_reconcile(platform, platform.ledger.shard(shard.key)) for shard in unfinished]


# -- what an operator decides


class Decision(StrEnum):
    """An operator's word about a claim whose outcome is unknown."""

    ADOPT = "adopt"  # this batch is the shard's
    RESEND = "resend"  # the provider has nothing of it: send it
    ABANDON = "abandon"  # do not send it again: its requests fail


@dataclass(frozen=True, slots=True)
class Candidate:
    """A batch that may be a claim's, and what speaks for it or against it."""

    batch: Batch
    evidence: str


@dataclass(frozen=True, slots=True)
class OpenClaim:
    """A shard whose outcome is unknown, and the batches that it may be in.

    `problem` says why the provider could not be asked, else it is empty.
    """

    shard: Shard
    candidates: tuple[Candidate, ...] = ()
    problem: str = ""


def open_claims(platform: Platform) -> list[OpenClaim]:
    """All shards whose outcome is unknown, with their candidates. Changes nothing."""
    return [_open_claim(platform, shard) for shard in platform.ledger.unfinished_claims()]


def decide(platform: Platform, key: str, decision: Decision, *, batch_id: str | None, operator: str) -> None:
    """Do what an operator says about a claim, and write down who said so.

    Raises LLMAssetsError, and settles nothing, when the claim is not open, its run may be alive, or what the provider
    says speaks against it.
    """
    if decision is Decision.ABANDON and (lost := _out_of_reach(platform, key)):
        platform.ledger.decided(key, decision, batch_id=lost.batch_id, operator=operator)
        _give_up(platform, lost, operator)
        return
    shard = next((shard for shard in platform.ledger.unfinished_claims() if shard.key == key), None)
    if shard is None:
        raise LedgerError(f"no claim of shard {key!r} is open; `llm-assets reconcile` lists those that are")
    if not _take_over(platform, shard):
        raise LedgerError(f"the run that claimed shard {key} ({shard.owner}) is alive: wait for its end, or stop it")
    client = platform.client_of(shard)
    if decision is Decision.ADOPT:
        batch = client.batch(batch_id or "")
        _check_adoption(platform, shard, batch)
        platform.ledger.decided(key, decision, batch_id=batch.batch_id, operator=operator)
        platform.ledger.submitted(key, batch, adopted=not platform.is_stamped(shard))
    elif decision is Decision.RESEND:
        _check_no_proof(platform, shard, client)
        platform.ledger.decided(key, decision, batch_id=None, operator=operator)
        message = f"{operator} said that the provider has no batch of this claim"
        # A run that was cut off from a distant ledger may be in the middle of its upload.
        later = None if shard.owner == platform.owner else platform.clock() + platform.ledger.lingers
        platform.ledger.released(key, of_owner=platform.owner, message=message, not_before=later)
    else:
        _check_no_proof(platform, shard, client)
        platform.ledger.decided(key, decision, batch_id=None, operator=operator)
        _abandon(platform, shard, operator)


# -- what was sent with another key


@dataclass(frozen=True, slots=True)
class OtherAccount:
    """What is in flight under another account than the one that is set now; `proof` names a batch that shows both to
    be one, None when the present key sees none of them.
    """

    provider: str
    account: str
    shards: tuple[Shard, ...]
    proof: str | None = None


def other_accounts(platform: Platform) -> list[OtherAccount]:
    """What nobody can ask about with the keys that are set. No provider is asked; one without a key is left out."""
    groups: dict[tuple[str, str], list[Shard]] = {}
    for shard in platform.ledger.active_shards():
        if shard.state is ShardState.PLANNED:
            continue
        try:
            platform.client_of(shard)
        except SystemicError as error:
            if error.code == OTHER_ACCOUNT:
                groups.setdefault((shard.provider, shard.account), []).append(shard)
    return [OtherAccount(*names, tuple(shards)) for names, shards in groups.items()]


def take_over(platform: Platform, operator: str) -> list[OtherAccount]:
    """Move what was sent with another key to the one that is set now, where both are proven to be of one account: the
    present key sees a batch that the other one made. Returns all that was found, with the proof of what was moved.

    Raises ProviderError when the provider cannot be asked.
    """
    return [_taken_over(platform, other, operator) for other in other_accounts(platform)]


def _taken_over(platform: Platform, other: OtherAccount, operator: str) -> OtherAccount:
    for shard in other.shards:
        client = platform.sender(shard)
        if shard.batch_id is None or not _sees(client, shard):
            continue
        platform.ledger.decided(other.account, "take-over", batch_id=shard.batch_id, operator=operator)
        platform.ledger.transfer(shard.provider, other.account, to=client.account)
        return replace(other, proof=shard.batch_id)
    return other


def _sees(client: Client, shard: Shard) -> bool:
    try:
        batch = client.batch(shard.batch_id or "")
    except (NotThere, RequestRejected):
        return False
    return batch.stamp in (None, shard.key)


def _open_claim(platform: Platform, shard: Shard) -> OpenClaim:
    try:
        client = platform.client_of(shard)
        batches, _ = _batches_since(client, shard)
        stamped = platform.is_stamped(shard)
        found = candidates(shard, batches, (), stamped=stamped)
        return OpenClaim(shard, tuple(Candidate(batch, _evidence(platform, client, shard, batch)) for batch in found))
    except LLMAssetsError as error:
        return OpenClaim(shard, problem=str(error))


def _evidence(platform: Platform, client: Client, shard: Shard, batch: Batch) -> str:
    if platform.is_stamped(shard):
        return "carries the shard's stamp"
    if platform.ledger.known_batches([batch.batch_id]):
        return "belongs to another shard"
    if batch.state is not BatchState.ENDED:
        return "same size and time; its results will tell"
    return "its results are this shard's" if _answers(platform, client, shard, batch) else "its results are others'"


def _answers(platform: Platform, client: Client, shard: Shard, batch: Batch) -> bool:
    """Whether the results of a batch answer this shard. One line tells: a batch is one shard."""
    dialect = platform.dialect_of(shard)
    with platform.store.files.scratch() as folder:
        for line in read_lines(client.download(batch, folder)):
            with suppress(ValueError):
                return fingerprint_of(dialect.result(line).custom_id, shard.key) is not None
    return False


def _check_adoption(platform: Platform, shard: Shard, batch: Batch) -> None:
    if platform.ledger.known_batches([batch.batch_id]):
        raise LedgerError(f"batch {batch.batch_id} belongs to another shard; nothing was changed")
    if platform.is_stamped(shard) and batch.stamp != shard.key and not _of_its_file(shard, batch):
        raise LedgerError(f"batch {batch.batch_id} carries the stamp {batch.stamp!r}, not {shard.key!r}")
    if batch.counts.total not in (0, shard.requests):
        raise LedgerError(f"batch {batch.batch_id} has {batch.counts.total:,} requests, the shard {shard.requests:,}")


def _check_no_proof(platform: Platform, shard: Shard, client: Client) -> None:
    """Sending again what the provider certainly has, or giving it up, is no decision but a mistake."""
    batches, _ = _batches_since(client, shard)
    if platform.is_stamped(shard):
        proven = next(iter(candidates(shard, batches, (), stamped=True)), None)
    else:
        taken = platform.ledger.known_batches(batch.batch_id for batch in batches)
        proven = _despite_its_size(platform, client, shard, batches, taken)
    if proven:
        raise LedgerError(f"batch {proven.batch_id} is shard {shard.key}'s: adopt it; nothing was changed")


def _abandon(platform: Platform, shard: Shard, operator: str) -> None:
    message, results = _given_up(platform, shard, operator)
    platform.ledger.rejected(
        shard.key, results, of_owner=platform.owner, code="abandoned", message=message, billed=True
    )


def _out_of_reach(platform: Platform, key: str) -> Shard | None:
    """The shard, if it was sent with a key that is not set: nobody can ask about it, but it can be given up."""
    for other in other_accounts(platform):
        for shard in other.shards:
            if shard.key == key and (shard.state is not ShardState.SUBMITTING or _take_over(platform, shard)):
                return shard
    return None


def _give_up(platform: Platform, shard: Shard, operator: str) -> None:
    if shard.state is ShardState.SUBMITTING:
        _abandon(platform, platform.ledger.shard(shard.key), operator)
        return
    message, results = _given_up(platform, shard, operator)
    if shard.state is ShardState.SUBMITTED:
        platform.ledger.vanished(shard, message)
    platform.ledger.collected(shard, results)


def _given_up(platform: Platform, shard: Shard, operator: str) -> tuple[str, str]:
    """Write the outcome of requests that nobody waits for any more. Returns the message and the table."""
    message = f"{operator} gave up the batch that this was sent in"
    table = same_outcome(sent_fingerprints(platform.store, shard), Reason.ABANDONED, "abandoned", message, shard.wave)
    results = platform.store.new_results(shard, platform.new_key())
    platform.store.write(results, table)
    return message, results


# -- the parts of both


def _take_over(platform: Platform, shard: Shard) -> bool:
    """Make a claim this platform's own to settle, if its owner is proven to be gone. False when it is not."""
    if shard.owner == platform.owner:
        return True
    ledger = platform.ledger
    patience = platform.clock() + ledger.lingers + platform.visible_after(shard)
    return ledger.is_gone(shard.owner) and ledger.take_over(shard, platform.owner, not_before=patience)


def _reconcile(platform: Platform, shard: Shard) -> Verdict:
    try:
        client = platform.client_of(shard)
    except SystemicError as error:
        return _unsettled(platform, shard, Wait(), str(error))
    batches, unread = _batches_since(client, shard)
    taken = platform.ledger.known_batches(batch.batch_id for batch in batches)
    stamped = platform.is_stamped(shard)
    found = verdict(
        shard,
        batches,
        taken,
        stamped=stamped,
        rivals=not stamped and _has_rivals(platform, shard),
        now=platform.clock(),
        visibility_delay=platform.visible_after(shard),
    )
    if (
        isinstance(found, Release)
        and not stamped
        and (batch := _despite_its_size(platform, client, shard, batches, taken))
    ):
        found = Adopt(batch)
    if isinstance(found, Release) and unread:  # one of those may be the batch that is looked for
        return _unsettled(platform, shard, Wait(), f"{unread} batches that the provider lists cannot be read")
    match found:
        case Adopt(batch):
            with suppress(IllegalTransition):  # another claim took it at the same moment: the next look tells
                platform.ledger.submitted(shard.key, batch, adopted=not stamped)
        case Release():
            with suppress(IllegalTransition):
                message = "the provider has no batch of this claim"
                platform.ledger.released(shard.key, of_owner=platform.owner, message=message)
        case Wait():
            _unsettled(platform, shard, found, "the provider lists no batch of this claim yet")
    return found


def _despite_its_size(
    platform: Platform, client: Client, shard: Shard, batches: Iterable[Batch], taken: Collection[str]
) -> Batch | None:
    """An ended batch of nearly the shard's size that answers it: counts can be wrong, results name who they are for."""
    for batch in batches:
        near = abs(batch.counts.total - shard.requests) <= max(_WRONG_COUNT_MAX, shard.requests // 100)
        free = batch.batch_id not in taken and batch.batch_id not in shard.past_batches
        if near and free and batch.state is BatchState.ENDED and _of_this_claim(shard, batch):
            with suppress(NotThere):
                if _answers(platform, client, shard, batch):
                    return batch
    return None


def _has_rivals(platform: Platform, shard: Shard) -> bool:
    return any(
        other.adopted and other.account == shard.account and other.requests == shard.requests
        for other in platform.ledger.active_shards()
    )


def _unsettled(platform: Platform, shard: Shard, found: Verdict, message: str) -> Verdict:
    platform.ledger.unsettled(shard.key, message, owner=platform.owner)
    return found


def _batches_since(client: Client, shard: Shard) -> tuple[list[Batch], int]:
    """The account's batches since shortly before the claim, newest first, and how many more cannot be read."""
    assert shard.claimed_at is not None
    since, cursor = shard.claimed_at - CLOCK_SKEW, None
    found: list[Batch] = []
    unread = 0
    for _ in range(_PAGES_MAX):
        page = client.batches(cursor)
        unread += page.unread
        found += page.batches
        cursor = page.cursor
        if cursor is None or any(batch.created_at < since for batch in page.batches):
            return found, unread
    raise OutcomeUnknown(
        f"shard {shard.key}: more than {_PAGES_MAX} pages of batches since its claim at {shard.claimed_at:%F %T}; "
        "its outcome must be settled by hand"
    )
