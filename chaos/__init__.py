"""Random schedules of faults, kills and double runs, and a referee who counts what was lost and what was paid twice.

    python -m chaos --schedules 200 --seed 1
    python -m chaos --only 17 --seed 1

`schedule.py` draws a schedule from its seed, `worker.py` is the process that is let run, doubled and killed, `stage.py`
plays a schedule with real processes against an emulator and a clock that is moved on, `referee.py` judges by the
emulator's accounting and by the tables, `season.py` plays all schedules, `report.py` says what came of them.

A schedule is the same for the same seed; how its processes meet is up to the machine, as it is in life.
"""
