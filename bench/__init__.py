"""Throughput and memory of this platform, beside a plain script that does the same with the vendors' SDKs.

    python -m bench --documents 50000

Both talk to the same emulator in the same run and are measured in processes of their own, one process for each
phase. `platform_run.py` and `plain_script.py` are the two contenders, `task.py` is what both are asked to do,
`phase.py` is what is measured of it, and `comparison.py` runs them in turns.

Absolute numbers depend on the machine and on what else it does; ratios within one run say more.
"""
