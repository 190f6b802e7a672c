"""curator: an LLM in batch mode over a list of rows, asking every second, the least that it offers."""

from pathlib import Path
from typing import Any, Literal

from bespokelabs import curator  # type: ignore[import-not-found, unused-ignore]  # there in its own environment
from pydantic import BaseModel

from bench.peers.driving import Job, drive


class Answer(BaseModel):
    """What is asked for."""

    sentiment: Literal["positive", "negative", "neutral"]
    topic: Literal["quality", "price", "delivery", "service", "other"]
    summary: str


class Labels(curator.LLM):  # type: ignore[misc, unused-ignore]  # of no known type here
    """The task."""

    response_format = Answer

    def prompt(self, row: dict[str, str]) -> str:
        """What is asked about a row."""
        return row["text"]

    def parse(self, row: dict[str, str], answer: Answer) -> dict[str, Any]:
        """A row of the answers."""
        return {"document_id": row["document_id"], **answer.model_dump()}


def answer_all(job: Job) -> int:
    """Send, wait, collect."""
    labels = Labels(
        model_name=job.model,
        backend=job.provider,
        batch=True,
        backend_params={"batch_check_interval": 1},
        generation_params={"max_tokens": job.max_tokens},
        system_prompt=job.system,
    )
    _name_uploads(labels._request_processor.client.files)
    return len(labels(job.documents, working_dir=str(Path(job.folder, "cache"))).dataset)


def _name_uploads(files: Any) -> None:
    """It uploads bytes without a file's name, which the emulator takes for the wrong format."""
    create = files.create

    async def named(*, file: bytes, purpose: str) -> Any:
        return await create(file=("batch.jsonl", file), purpose=purpose)

    files.create = named


if __name__ == "__main__":
    drive(answer_all)
