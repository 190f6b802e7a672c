"""Several machines on one: a backfill over two hosts, one of which dies, and one of which loses its database.

    python -m cluster --partitions 50

A host is a set of Linux namespaces: a network, a name, a process table and mounts of its own. `data` has Postgres and
S3, `vendor` the two emulated providers, `a` Dagster's daemon and runs, `b` runs. `hosts.py` makes hosts and the switch
between them, `services.py` what stands on them, `agent.py` starts runs on its host for `launcher.py`, as an agent of
ECS does for its launcher; `definitions.py` is what is run, `scene.py` what happens, `watch.py` what is seen of it, and
`chaos.referee` judges.

All of it is in namespaces of its own, which the kernel takes down with the process that made them, however that ends:
no process, interface or mount is left, and nothing reaches a network outside.
"""
