"""What the demo asks of Dagster, through its webserver's GraphQL."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from llm_assets.demo.loopback import HOST, ask
from llm_assets.errors import LLMAssetsError

_LAUNCH = """
mutation Launch($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
    ... on RunConfigValidationInvalid { errors { message } }
  }
}
"""
_RUNS = """
query Runs($after: Float!) {
  runsOrError(filter: {createdAfter: $after}, limit: 200) {
    __typename
    ... on Runs { results { runId rootRunId status assetSelection { path } tags { key value } } }
    ... on PythonError { message }
  }
}
"""


@dataclass(frozen=True, slots=True)
class Run:
    """A run of Dagster's. `root` is the run that it repeats, or itself; `retried` says that another follows."""

    run_id: str
    root: str
    status: str
    partition: str
    assets: tuple[str, ...]
    retried: bool

    @property
    def failed(self) -> bool:
        """Whether it ended without success."""
        return self.status in ("FAILURE", "CANCELED")


@dataclass(frozen=True, slots=True)
class Webserver:
    """Dagster's webserver at a port of this machine."""

    port: int

    @property
    def url(self) -> str:
        """The UI's address."""
        return f"http://{HOST}:{self.port}"

    def launch(self, partition: str, assets: Iterable[list[str]]) -> str:
        """Start a run of these assets; its id."""
        selector = {
            "repositoryLocationName": "llm_assets",
            "repositoryName": "__repository__",
            "pipelineName": "__ASSET_JOB",
            "assetSelection": [{"path": path} for path in assets],
            "assetCheckSelection": [],
        }
        tags = [{"key": "dagster/partition", "value": partition}]
        params = {"selector": selector, "executionMetadata": {"tags": tags}, "mode": "default"}
        answer = self._graphql(_LAUNCH, {"params": params})["launchRun"]
        if answer["__typename"] != "LaunchRunSuccess":
            raise LLMAssetsError(f"Dagster would not start the run of {partition}: {orjson.dumps(answer).decode()}")
        return str(answer["run"]["runId"])

    def runs(self, created_after: float) -> list[Run]:
        """The runs since then, the latest first."""
        answer = self._graphql(_RUNS, {"after": created_after})["runsOrError"]
        if answer["__typename"] != "Runs":
            raise LLMAssetsError(f"Dagster would not list its runs: {orjson.dumps(answer).decode()}")
        return [_run(found) for found in answer["results"]]

    def _graphql(self, query: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        body = orjson.dumps({"query": query, "variables": variables})
        answer = orjson.loads(ask(self.port, "POST", "/graphql", body))
        if "errors" in answer:
            raise LLMAssetsError(f"Dagster did not understand: {orjson.dumps(answer['errors']).decode()[:500]}")
        return dict(answer["data"])


def _run(found: Mapping[str, Any]) -> Run:
    tags = {tag["key"]: tag["value"] for tag in found["tags"]}
    return Run(
        run_id=found["runId"],
        root=found["rootRunId"] or found["runId"],
        status=found["status"],
        partition=tags.get("dagster/partition", ""),
        assets=tuple("/".join(key["path"]) for key in found["assetSelection"] or ()),
        retried=tags.get("dagster/will_retry") == "true",
    )
