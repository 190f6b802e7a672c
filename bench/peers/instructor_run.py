"""instructor's BatchProcessor: build the file, submit it, ask until it has ended, parse into the model."""

import time
from pathlib import Path
from typing import Literal

from instructor.batch import BatchProcessor, BatchSuccess  # type: ignore[import-not-found, unused-ignore]
from pydantic import BaseModel

from bench.peers.driving import POLL_SECONDS, Job, drive


class Answer(BaseModel):
    """What is asked for."""

    sentiment: Literal["positive", "negative", "neutral"]
    topic: Literal["quality", "price", "delivery", "service", "other"]
    summary: str


def answer_all(job: Job) -> int:
    """Send, wait, collect."""
    processor = BatchProcessor(f"{job.provider}/{job.model}", Answer)
    messages = [job.messages(document) for document in job.documents]
    file = processor.create_batch_from_messages(
        messages, file_path=str(Path(job.folder, "requests.jsonl")), max_tokens=job.max_tokens
    )
    batch_id = processor.submit_batch(file)
    while processor.get_batch_status(batch_id)["status"] not in ("completed", "ended"):
        time.sleep(POLL_SECONDS)  # it leaves the waiting to its caller
    return sum(isinstance(result, BatchSuccess) for result in processor.retrieve_results(batch_id))


if __name__ == "__main__":
    drive(answer_all)
