"""steadybatch: `Runner.run`, asking without a pause whether the batch has ended."""

from pathlib import Path
from typing import Any

import steadybatch  # type: ignore[import-not-found, unused-ignore]  # there in its own environment
from steadybatch.providers.anthropic_batch import (  # type: ignore[import-not-found, unused-ignore]
    AnthropicBatch,
)
from steadybatch.providers.openai_batch import OpenAIBatch  # type: ignore[import-not-found, unused-ignore]

from bench.peers.driving import Job, drive


def answer_all(job: Job) -> int:
    """Send, wait, collect."""
    provider: Any = AnthropicBatch() if job.provider == "anthropic" else OpenAIBatch()
    requests = [
        steadybatch.Request(
            key=document["document_id"],
            system=job.system,
            messages=[{"role": "user", "content": document["text"]}],
            max_tokens=job.max_tokens,
        )
        for document in job.documents
    ]
    checkpoint = Path(job.folder, "checkpoint.sqlite")
    runner = steadybatch.Runner(provider, job.model, response_schema=job.schema, checkpoint=checkpoint, poll_every=0.0)
    return int(runner.run(requests).ok)


if __name__ == "__main__":
    drive(answer_all)
