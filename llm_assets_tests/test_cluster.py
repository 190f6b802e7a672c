"""What `make cluster` makes of what it saw. The hosts themselves need root and minutes: they are for `make cluster`."""

from collections import Counter

import dagster as dg
import pytest

from chaos.referee import Verdict
from cluster.definitions import JOB, PROVIDERS, defs
from cluster.hosts import address
from cluster.launcher import HOST_TAG
from cluster.scene import WORKERS, Outcome
from cluster.watch import in_pools

A, B = (address(number) for number in WORKERS.values())


def outcome(**changes: object) -> Outcome:
    """One in which all went well, but for these changes."""
    well = Outcome(
        partitions=50,
        runs=Counter({(A, "SUCCESS"): 80, (B, "SUCCESS"): 70, (B, "FAILURE"): 2}),
        pool_limits=dict.fromkeys(PROVIDERS, 2),
        pool_most=Counter(dict.fromkeys(PROVIDERS, 2)),
        verdicts={provider: Verdict(partitions=50, documents=1000) for provider in PROVIDERS},
    )
    for name, value in changes.items():
        setattr(well, name, value)
    return well


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        pytest.param({}, [], id="all-well"),
        pytest.param({"verdicts": {"openai": Verdict(documents_lost=1)}}, ["openai: documents_lost 1"], id="lost"),
        pytest.param(
            {"verdicts": {"openai": Verdict(requests_billed_twice=3, details=["content x was paid for"])}},
            ["openai: requests_billed_twice 3", "openai: content x was paid for"],
            id="twice",
        ),
        pytest.param(
            {"pool_most": Counter(openai=3)}, ["3 runs were in the pool of openai at once"], id="a-pool-that-overflowed"
        ),
        pytest.param({"runs": Counter({(A, "SUCCESS"): 9})}, [f"no run has ended well on {B}"], id="an-idle-host"),
        pytest.param({"unfinished": "it did not end"}, ["it did not end"], id="no-end"),
    ],
)
def test_a_broken_promise_is_told(changes: dict[str, object], told: list[str]) -> None:
    assert list(outcome(**changes).broken()) == told


def test_a_run_is_in_the_pools_of_what_it_sends() -> None:
    job = defs().resolve_job_def(JOB)
    names = {key.to_user_string() for key in job.asset_layer.executable_asset_keys}
    assert names == {"documents/texts", "labels_anthropic/batches", "labels_openai/batches"}

    def run(host: str, *tables: str) -> dg.DagsterRun:
        keys = frozenset(dg.AssetKey(table.split("/")) for table in tables)
        return dg.DagsterRun(job_name=JOB, tags={HOST_TAG: host}, asset_selection=keys or None)

    found = in_pools([run(A), run(B, "labels_openai/batches"), run(B, "labels_openai/enriched")])
    assert found == {("anthropic", A): 1, ("openai", A): 1, ("openai", B): 1}
