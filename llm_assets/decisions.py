"""What an operator decides about claims whose outcome is unknown, checked against what the provider says."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from llm_assets.answers import same_outcome
from llm_assets.claims import batches_since, candidates, is_answered_by, of_its_file, proven_by_results, take_claim
from llm_assets.errors import LedgerError, LLMAssetsError
from llm_assets.history import sent_fingerprints
from llm_assets.other_accounts import other_accounts
from llm_assets.platform import Platform
from llm_assets.providers import Client
from llm_assets.records import Batch, BatchState, Reason, Shard, ShardState


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
    if not take_claim(platform, shard):
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


def _open_claim(platform: Platform, shard: Shard) -> OpenClaim:
    try:
        client = platform.client_of(shard)
        batches, _ = batches_since(client, shard)
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
    return (
        "its results are this shard's" if is_answered_by(platform, client, shard, batch) else "its results are others'"
    )


def _check_adoption(platform: Platform, shard: Shard, batch: Batch) -> None:
    if platform.ledger.known_batches([batch.batch_id]):
        raise LedgerError(f"batch {batch.batch_id} belongs to another shard; nothing was changed")
    if platform.is_stamped(shard) and batch.stamp != shard.key and not of_its_file(shard, batch):
        raise LedgerError(f"batch {batch.batch_id} carries the stamp {batch.stamp!r}, not {shard.key!r}")
    if batch.counts.total not in (0, shard.requests):
        raise LedgerError(f"batch {batch.batch_id} has {batch.counts.total:,} requests, the shard {shard.requests:,}")


def _check_no_proof(platform: Platform, shard: Shard, client: Client) -> None:
    """Sending again what the provider certainly has, or giving it up, is no decision but a mistake."""
    batches, _ = batches_since(client, shard)
    if platform.is_stamped(shard):
        proven = next(iter(candidates(shard, batches, (), stamped=True)), None)
    else:
        taken = platform.ledger.known_batches(batch.batch_id for batch in batches)
        proven = proven_by_results(platform, client, shard, batches, taken)
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
            if shard.key == key and (shard.state is not ShardState.SUBMITTING or take_claim(platform, shard)):
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
    return message, platform.store.write_results(shard, table, collector=platform.new_key())
