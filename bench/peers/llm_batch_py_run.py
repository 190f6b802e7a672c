"""llm-batch-py: `Runner.run` over a table, again until nothing is in flight, as a scheduler would call it.

It counts tokens with a vocabulary that it fetches from the network. It is spared that.
"""

import time
from pathlib import Path
from typing import Literal

import llm_batch_py as llm  # type: ignore[import-not-found, unused-ignore]  # there in its own environment
import polars as pl
from llm_batch_py.providers import openai as adapter  # type: ignore[import-not-found, unused-ignore]
from pydantic import BaseModel

from bench.peers.driving import POLL_SECONDS, Job, drive


class Answer(BaseModel, extra="forbid"):
    """What is asked for."""

    sentiment: Literal["positive", "negative", "neutral"]
    topic: Literal["quality", "price", "delivery", "service", "other"]
    summary: str


def answer_all(job: Job) -> int:
    """Send, wait, collect."""
    adapter.estimate_openai_batch_tokens = lambda _model, bodies: [0 for _ in bodies]
    prompt = llm.structured_template(system=job.system, messages="{{ row.text }}", name="bench", version="v1")
    asked = llm.StructuredOutputJob(
        name="bench",
        key_cols=["document_id"],
        input_df=pl.DataFrame(job.documents),
        prompt_builder=prompt,
        output_model=Answer,
        provider=llm.OpenAIConfig(model=job.model, max_output_tokens=job.max_tokens),
        result_cache=llm.ResultCacheStoreConfig(root_uri=str(Path(job.folder, "cache"))),
    )
    runner = llm.Runner()
    table = runner.run(asked)
    while runner.last_summary.inflight_rows + runner.last_summary.submitted_rows:
        time.sleep(POLL_SECONDS)  # as a scheduler waits
        table = runner.run(asked)
    return int(table["llm_batch_py_status"].is_in(["completed", "cached"]).sum())


if __name__ == "__main__":
    drive(answer_all)
