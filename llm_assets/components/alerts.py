"""The component `Alerts`: tells people of runs and checks that failed, by a webhook, in Slack, or both.

An alert leaves the house: it holds names, ids and counts, never a document's text. Of errors that are not this
project's own it names the class alone.
"""

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import dagster as dg
import httpx2
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from llm_assets.components.declarations import file_of
from llm_assets.components.loaded import DECLARED
from llm_assets.components.timing import FRESHNESS_CHECK
from llm_assets.errors import DeclarationError, LLMAssetsError, TransientError, is_ours

WEBHOOK = "LLM_ASSETS_ALERT_WEBHOOK"
UI = "LLM_ASSETS_UI_URL"
SLACK_TOKEN = "SLACK_BOT_TOKEN"  # noqa: S105 (the variable's name)
SLACK_API = "SLACK_API_URL"
# Three of them end before Dagster's 60 s for a tick do.
_SECONDS_MAX = 8
_ATTEMPTS = 3
_SAID_MAX = 500
_SHOWN_MAX = 10


class Alerts(dg.Component, dg.Model, dg.Resolvable):
    """Tells of runs that failed and, unless `checks` is off, of checks that did: one that found too many failures, or
    yesterday's answers missing (`fresh_by`).

    Where to is said by the environment alone: with `webhook`, LLM_ASSETS_ALERT_WEBHOOK is the URL that gets a POST with
    JSON; with a `slack_channel`, SLACK_BOT_TOKEN is the token of the app that writes there.
    """

    webhook: bool = False
    slack_channel: str | None = None
    checks: bool = True

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """The sensors `failed_runs` and `failed_checks`."""
        source = file_of(context)
        if not self.webhook and self.slack_channel is None:
            raise DeclarationError(source, "alerts go nowhere; write `webhook: true` or a `slack_channel`, or both")
        if self.slack_channel is not None and find_spec("dagster_slack") is None:
            raise DeclarationError(source, "a slack_channel needs dagster-slack: pip install 'llm-assets[slack]'")
        send = self.sender()
        return dg.Definitions(sensors=[failed_runs(send), *([failed_checks(send)] if self.checks else [])])

    def sender(self) -> "Send":
        """What sends an alert to all that are declared; what goes wrong with one does not keep it from another."""
        ways: list[Send] = [to_webhook] if self.webhook else []
        if (channel := self.slack_channel) is not None:
            ways.append(lambda alert: to_slack(alert, channel))

        def send(alert: Alert) -> None:
            problems = []
            for way in ways:
                try:
                    way(alert)
                except LLMAssetsError as problem:
                    problems.append(str(problem))
            if problems:
                raise LLMAssetsError(f"the alert of run {alert.run_id} was not sent: {'; '.join(problems)}")

        return send


@dataclass(frozen=True, slots=True)
class Alert:
    """What failed: `event` is run_failed or check_failed, `details` say why, `counts` are numbers by their names."""

    event: str
    run_id: str
    assets: Sequence[str]
    partition: str
    details: Sequence[str]
    counts: Mapping[str, float] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """The run in the UI; empty where nobody says where that is."""
        base = os.environ.get(UI, "").rstrip("/")
        return f"{base}/runs/{self.run_id}" if base else ""

    @property
    def text(self) -> str:
        """A few lines for people."""
        what = {"run_failed": "failed", "check_failed": "has failed checks"}[self.event]
        head = f"{', '.join(self.assets) or 'A run'} {self.partition}".rstrip()
        return "\n".join([f"{head} {what}: run {self.run_id[:8]} {self.url}".rstrip(), *self.details])

    @property
    def payload(self) -> dict[str, Any]:
        """What a webhook gets; `text` alone is what chat programs show."""
        named = {name: getattr(self, name) for name in ("event", "run_id", "partition", "url")}
        lists = {"assets": list(self.assets), "details": list(self.details)}
        return {"text": self.text, **named, **lists, "counts": dict(self.counts)}


Send = Callable[[Alert], None]


def failed_runs(send: Send) -> dg.SensorDefinition:
    """The sensor that tells of each run that failed and that Dagster does not launch again by itself."""

    @dg.run_failure_sensor(
        name="failed_runs",
        description="Tells people of runs that failed.",
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def tell(context: dg.RunFailureSensorContext) -> None:
        run, steps = context.dagster_run, context.get_step_failure_events()
        if run.tags.get("dagster/will_retry") == "true":
            return
        told = [*map(_why, steps)] or [context.failure_event.message or "its process is gone"]
        counts = {name: number for step in steps for name, number in _counts(step).items()}
        reasons = [line for step in steps for line in _reasons(step)]
        details = [line[:_SAID_MAX] for line in (*told, *reasons)]
        send(Alert("run_failed", run.run_id, _assets(run), _partition(run), details, counts))

    return tell


def failed_checks(send: Send) -> dg.SensorDefinition:
    """The sensor that tells of checks that failed in runs that did not."""

    @dg.run_status_sensor(
        name="failed_checks",
        description="Tells people of checks that failed: too many failures, answers that are late.",
        run_status=dg.DagsterRunStatus.SUCCESS,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def tell(context: dg.RunStatusSensorContext) -> None:
        run = context.dagster_run
        logs = context.instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
        found = [event.asset_check_evaluation for event in logs]
        failed = [check for check in found if check is not None and not check.passed]
        if failed:
            assets = sorted({check.asset_key.to_user_string() for check in failed})
            send(Alert("check_failed", run.run_id, assets, _partition(run), [*map(_check, failed)]))

    return tell


def _why(step: dg.DagsterEvent) -> str:
    """Why a step failed: in the words of this project, or the class of somebody else's error."""
    data = step.step_failure_data
    if data.user_failure_data is not None and _is_own(step):
        return f"{step.step_key}: {data.user_failure_data.description}"
    error = data.error
    while error is not None and error.cause is not None:
        error = error.cause
    if error is None:
        return f"{step.step_key}: no error is known"
    said = error.message.partition(": ")[2].strip() if is_ours(error.cls_name or "") else ""
    return f"{step.step_key}: {error.cls_name}{f': {said}' if said else ''}"


def _is_own(step: dg.DagsterEvent) -> bool:
    """Whether a step is an enrichment's: what those say of their failures holds no text."""
    return str(step.step_key).rpartition("__")[0] in DECLARED


def _counts(step: dg.DagsterEvent) -> dict[str, float]:
    """The numbers that an enrichment says of its failure, without those that are nought."""
    return {
        name: value.value
        for name, value in _said(step).items()
        if isinstance(value, dg.IntMetadataValue | dg.FloatMetadataValue) and value.value
    }


def _reasons(step: dg.DagsterEvent) -> Iterator[str]:
    """Why documents have no answer, with the ids of a few."""
    reasons = _said(step).get("reasons")
    for record in reasons.records[:_SHOWN_MAX] if isinstance(reasons, dg.TableMetadataValue) else ():
        yield f"{record.data['reason']}: {record.data['count']} (such as {record.data['such as']})"


def _said(step: dg.DagsterEvent) -> Mapping[str, dg.MetadataValue]:
    data = step.step_failure_data.user_failure_data
    return data.metadata if data is not None and _is_own(step) else {}


def _check(found: dg.AssetCheckEvaluation) -> str:
    """What a check found, in numbers; of freshness, what is missing, which Dagster says itself."""
    numbers = [
        f"{name} {value.value:.4g}"
        for name, value in found.metadata.items()
        if isinstance(value, dg.IntMetadataValue | dg.FloatMetadataValue)
    ]
    said = found.description or "" if found.check_name == FRESHNESS_CHECK else ", ".join(numbers[:_SHOWN_MAX])
    return f"{found.check_name} ({found.severity.value.lower()}): {said}".rstrip(": ")


def _assets(run: dg.DagsterRun) -> list[str]:
    return sorted(key.to_user_string() for key in run.asset_selection or ())


def _partition(run: dg.DagsterRun) -> str:
    return run.tags.get("dagster/partition", "")


def to_webhook(alert: Alert) -> None:
    """POST an alert. Raises LLMAssetsError when that cannot be done; the URL is a secret, and is not told."""
    url = _variable(WEBHOOK)
    attempts = Retrying(
        retry=retry_if_exception_type(TransientError),
        stop=stop_after_attempt(_ATTEMPTS),
        wait=wait_exponential(multiplier=0.2),
        reraise=True,
    )
    attempts(_post, url, alert.payload)


def _post(url: str, payload: Mapping[str, Any]) -> None:
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # below, it logs the URL
    try:
        with httpx2.stream("POST", url, json=payload, timeout=_SECONDS_MAX) as reply:
            status = reply.status_code  # what else it says may be long, or never end
    except httpx2.TransportError as error:
        raise TransientError(f"the webhook cannot be reached ({type(error).__name__}); is {WEBHOOK} right?") from None
    except (httpx2.InvalidURL, httpx2.HTTPError) as error:
        raise LLMAssetsError(f"{WEBHOOK} cannot be used ({type(error).__name__}); set it to an https:// URL") from None
    if status == httpx2.codes.TOO_MANY_REQUESTS or status >= httpx2.codes.INTERNAL_SERVER_ERROR:
        raise TransientError(f"the webhook answered {status}, {_ATTEMPTS} times")
    if status >= httpx2.codes.MULTIPLE_CHOICES:
        raise LLMAssetsError(f"the webhook answered {status}; is {WEBHOOK} right?")


def to_slack(alert: Alert, channel: str) -> None:
    """Write an alert into a channel. Raises LLMAssetsError when that cannot be done."""
    from dagster_slack import SlackResource
    from slack_sdk.errors import SlackApiError
    from slack_sdk.http_retry.builtin_handlers import RateLimitErrorRetryHandler

    client = SlackResource(token=_variable(SLACK_TOKEN)).get_client()
    client.timeout = _SECONDS_MAX
    client.base_url = os.environ.get(SLACK_API) or client.base_url
    client.retry_handlers.append(RateLimitErrorRetryHandler(max_retry_count=1))
    try:
        client.chat_postMessage(channel=channel, text=alert.text, unfurl_links=False)
    except SlackApiError as error:
        code = error.response.get("error", "no reason")
        raise LLMAssetsError(f"Slack refused it for {channel}: {code}") from None
    except OSError as error:
        raise LLMAssetsError(f"Slack cannot be reached ({type(error).__name__})") from None


def _variable(name: str) -> str:
    if value := os.environ.get(name):
        return value
    raise LLMAssetsError(f"{name} is not set where Dagster's code runs; set it, or take `Alerts` out")
