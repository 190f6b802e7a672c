"""Plays all schedules, a few at a time, each lane with an emulator of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory

from chaos.databases import Databases
from chaos.schedule import draw
from chaos.stage import Played, Stage


def play_all(
    seed: int, numbers: Iterable[int], scratch: Path, *, lanes: int, seconds_max: float, keep: bool = False
) -> Iterator[Played]:
    """Play the schedules of these numbers and yield each as it ends. None is begun after `seconds_max`."""
    scratch.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + seconds_max
    with ExitStack() as open_things:
        folder = scratch / f"kept-{seed}" if keep else Path(open_things.enter_context(_scratch_folder(scratch)))
        stages: SimpleQueue[Stage] = SimpleQueue()
        databases = open_things.enter_context(Databases(folder))
        for lane in range(lanes):
            stage = Stage(folder / f"lane-{lane}", databases)
            open_things.enter_context(stage.emulator)
            stages.put(stage)
        pool = open_things.enter_context(ThreadPoolExecutor(lanes))
        ends = [pool.submit(_one(stages, seed, number, deadline, keep)) for number in numbers]
        open_things.callback(pool.shutdown, cancel_futures=True)
        for end in as_completed(ends):
            if played := end.result():
                yield played


def _scratch_folder(scratch: Path) -> TemporaryDirectory[str]:
    return TemporaryDirectory(prefix="chaos-", dir=scratch, ignore_cleanup_errors=True)


def _one(
    stages: SimpleQueue[Stage], seed: int, number: int, deadline: float, keep: bool
) -> Callable[[], Played | None]:
    def play() -> Played | None:
        if time.monotonic() > deadline:
            return None
        stage = stages.get()
        try:
            return stage.play(draw(seed, number), keep=keep)
        finally:
            stages.put(stage)

    return play
