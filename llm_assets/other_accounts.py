"""What is in flight under another account than the one whose key is set now: nobody can ask about it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from llm_assets.errors import NotThere, RequestRejected, SystemicError
from llm_assets.platform import OTHER_ACCOUNT, Platform
from llm_assets.providers import Client
from llm_assets.records import Shard, ShardState


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
