"""A schedule is drawn from its seed alone: who runs, what goes wrong, who is killed, what people do. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

from llm_assets.emulator.faults import MENU, Fault, Scope

PROVIDERS = ("anthropic", "openai")
LEDGERS = ("sqlite", "postgres", "sqlite")
MINUTE_S, HOUR_S = 60.0, 3600.0
Rule = dict[str, Any]

_DAYS = 28
# How much time goes by after an act: none, less and more than a visibility delay, a tolerance, a wait for room, a day.
_PASSES_S = (0.0, 0.0, 30.0, 150.0, 20 * MINUTE_S, 1.2 * HOUR_S, 25 * HOUR_S)
_LATENCY_S = (0.0, 0.0, 0.0, 60.0, 20 * MINUTE_S)
_EVENTS_MAX = 3000
# Twice the words of an answer: what a document says decides what its answer has to be.
MOODS = {"good": "positive", "bad": "negative", "": "neutral"}


@dataclass(frozen=True, slots=True)
class Run:
    """One process, killed after `kill_after_s` real seconds or at the `kill_at_event`-th call or return at an edge.

    `by_person` says that somebody materializes `batches`, which lifts a hold; otherwise it is the sensor's doing.
    """

    prompt: int
    by_person: bool
    retry_failed: bool = False
    kill_after_s: float | None = None
    kill_at_event: int | None = None


@dataclass(frozen=True, slots=True)
class Act:
    """What happens at once: these faults are in force, these processes run, and then time goes by.

    `adds` documents come, and `changes` are rewritten, in each partition: before the processes start, or when the
    first of them is running (`amid`). `jumps_s` of time go by while they run.
    """

    rules: tuple[Rule, ...]
    runs: tuple[Run, ...]
    adds: int = 0
    changes: int = 0
    amid: bool = False
    jumps_s: float = 0.0
    passes_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Schedule:
    """Everything that is decided before a schedule begins. `prompt` is the one that is in force at its end."""

    number: int
    seed: int
    provider: str
    ledger: str
    partitions: tuple[str, ...]
    documents: int
    shard_requests: int
    latency_s: float
    acts: tuple[Act, ...]

    @property
    def prompt(self) -> int:
        """The version of the prompt that the last process had."""
        return self.acts[-1].runs[-1].prompt


def draw(seed: int, number: int, ledgers: tuple[str, ...] = LEDGERS) -> Schedule:
    """The schedule of this number."""
    random = Random(f"{seed}/{number}")  # noqa: S311 (a schedule, not a secret)
    # Providers and ledgers take turns, so that few schedules have all of them too.
    provider = PROVIDERS[number % len(PROVIDERS)]
    ledger = ledgers[number // len(PROVIDERS) % len(ledgers)]
    days = random.sample(range(1, _DAYS + 1), random.choice((1, 1, 2, 3)))
    documents = random.randint(6, 48)
    prompts = [0]
    acts = tuple(_act(random, provider, prompts, number_of=act) for act in range(random.randint(2, 5)))
    return Schedule(
        number=number,
        seed=seed,
        provider=provider,
        ledger=ledger,
        partitions=tuple(f"2026-11-{day:02}" for day in sorted(days)),
        documents=documents,
        shard_requests=random.choice((5, 12, 20, 100)),
        latency_s=random.choice(_LATENCY_S),
        acts=acts,
    )


def _act(random: Random, provider: str, prompts: list[int], number_of: int) -> Act:
    rules = tuple(_rule(random, provider) for _ in range(random.choice((0, 1, 2, 3, 4, 5))))
    runs = [_run(random, prompts, by_person=number_of == 0 or random.random() < 0.5)]
    if random.random() < 0.5:
        runs.append(_run(random, prompts, by_person=random.random() < 0.5))
    busy = number_of > 0 and random.random() < 0.35
    return Act(
        rules=rules,
        runs=tuple(runs),
        adds=random.randint(1, 6) if busy else 0,
        changes=random.randint(0, 3) if busy else 0,
        amid=random.random() < 0.3,
        jumps_s=random.choice((0.0, 0.0, 20.0, 3 * MINUTE_S)),
        passes_s=random.choice(_PASSES_S),
    )


def _run(random: Random, prompts: list[int], *, by_person: bool) -> Run:
    if by_person and random.random() < 0.15:
        prompts.append(random.choice((0, 1, 2)))
    end = random.random()
    return Run(
        prompt=prompts[-1],
        by_person=by_person,
        retry_failed=by_person and random.random() < 0.2,
        kill_after_s=random.uniform(0.005, 0.6) if end < 0.25 else None,
        kill_at_event=int(_EVENTS_MAX ** random.random()) if end > 0.7 else None,
    )


def _rule(random: Random, provider: str) -> Rule:
    """One fault of the menu, and when it fires."""
    scope = random.choice((Scope.ROW, Scope.ROW, Scope.BATCH, Scope.TRANSPORT, Scope.TRANSPORT))
    fault = random.choice([one for one in MENU.values() if one.scope is scope and provider in one.providers])
    rule: Rule = {"fault": fault.name, "provider": provider}
    if scope is Scope.ROW:
        rule |= {"rate": round(random.uniform(0.03, 0.6), 2), "seed": random.randrange(1000)}
        return rule | {"attempts": random.choice((1, 1, 1, 2, "always"))} | _options(random, fault)
    if random.random() < 0.3 and fault.name != "retrieve_404_blip":
        rule |= {"rate": round(random.uniform(0.1, 0.5), 2), "seed": random.randrange(1000)}
    else:
        rule |= {"times": random.randint(1, 3)}
    return rule | _options(random, fault) | _route(random, fault)


def _options(random: Random, fault: Fault) -> Rule:
    """How a fault does what it does, within what the platform promises to bear.

    A list that leaves out batches for longer than the visibility delay (2 minutes), or a batch that is not found for
    longer than a quarter of an hour, is beyond what it promises.
    """
    match fault.name:
        case "list_lag":
            return {"for_s": random.choice((5, 60, 110))}
        case "retrieve_404_at_first":
            return {"for_s": random.choice((5, 60, 600))}
        case "retrieve_404_blip":
            return {"times": 1}
        case "stalled" | "stalled_finalizing" | "slow_cancelling":
            return {"for_s": random.choice((60, 600, 7200))}
        case "silent_short_read" | "cut_mid_line":
            return {"share": round(random.uniform(0.05, 0.95), 2)} | random.choice(({}, {"times": 6}))
        case "expired_partial":
            return {"share": round(random.uniform(0.05, 0.95), 2)}
        case "slow":
            return {"delay_s": random.choice((0.05, 0.2, 0.4))}
        case "http_429":
            return random.choice(({}, {"retry_after_s": 5}, {"retry_after_s": 600}))
        case "retrieve_5xx":
            return {"status": random.choice((500, 502, 503))}
        case "all_errored" | "only_error_file":
            return {"error": random.choice(("api_error", "overloaded", "invalid", "rate_limit"))}
        case "counts_disagree":
            return {"by": random.choice((-2, 1, 2))}
        case "huge_answer":  # just beyond what is read, and seldom: time is better spent on other things
            return {"mb": 17, "rate": 0.03}
        case _:
            return {}


def _route(random: Random, fault: Fault) -> Rule:
    """Most faults of the transport can meet any call; those of reading make sense at their own only."""
    if fault.scope is not Scope.TRANSPORT or fault.route != "create" or random.random() < 0.6:
        return {}
    return {"route": random.choice(("upload", "retrieve", "list", "results", "any"))}
