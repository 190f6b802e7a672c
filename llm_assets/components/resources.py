"""The platform as a Dagster resource."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import Any

import dagster as dg

from llm_assets.platform import Platform, Settings, this_process

# Names the work that the sensor asked a run for; runs that a person launched have no such tag.
WORK_TAG = "llm_assets/work"
# Names the process that executes a run, so that its death can be proven.
PROCESS_TAG = "llm_assets/process"


def tag_process(context: dg.AssetExecutionContext) -> None:
    """Write on a run which process executes it, where that is one process from start to end."""
    if context.job_def.executor_def is dg.in_process_executor:
        context.instance.add_run_tags(context.run_id, {PROCESS_TAG: this_process()})


@cache
def s3_resource() -> Any:
    """dagster-aws's S3Resource: credentials, region and endpoint as boto3 finds them. All that need it share one."""
    from dagster_aws.s3 import S3Resource  # half a second of imports, for who has documents in a bucket

    return S3Resource()


class PlatformResource(dg.ConfigurableResource[Platform]):
    """Opens the store, the ledger and the providers' accounts for one step or tick.

    Keys and base URLs come from the environment (ANTHROPIC_API_KEY, OPENAI_API_KEY, …_BASE_URL); `root` and
    `ledger_url` too (LLM_ASSETS_ROOT, LLM_ASSETS_LEDGER_URL) unless they are given here.
    """

    root: str | None = None
    ledger_url: str | None = None

    @contextmanager
    def platform(self) -> Iterator[Platform]:
        """The platform, closed at the end of the block."""
        settings = Settings.from_environment()
        if self.root:
            settings = replace(settings, root=self.root)
        if self.ledger_url:
            settings = replace(settings, ledger_url=self.ledger_url)
        opened = Platform.open(settings)
        try:
            yield opened
        finally:
            opened.close()
