"""The local emulator: both vendors' batch APIs over real HTTP on loopback, for tests, demos and load.

    server.py            the command, the assembly, `serve`
    gate.py              around every request: counting, marks, faults of the transport
    control.py           `/_emulator/*`: clock, hold, limits, faults, accounting, reset
    anthropic.py         `/v1/messages…`               anthropic_rows.py   its requests and result lines
    openai.py            `/v1/batches`…                openai_rows.py      its requests and result lines
    openai_files.py      `/v1/files`                   openai_lines.py     its validation after create
    rows.py              from a request to a result line, the same for both: faults meet answers
    intake.py            bodies and files → rows on disk, with offsets and content digests
    jobs.py              what becomes of a batch, and when; the worker for slow models
    accounting.py        the referee: what was accepted, how often, and what was billed
    faults.py            everything that can be made to go wrong
    models.py            what answers; scripted.py, smollm2.py
    schemas.py           which JSON schemas each vendor enforces
    limits.py            what a batch or file may hold
    replies.py           bodies to disk, files as streams
    storage.py, clock.py the state that survives a restart, and its time

It imports nothing of the rest of this project and no vendor SDK, so that a misreading of the APIs cannot be
shared by both sides. Nothing here is the vendors': ids, headers and model names say "emulator".
"""
