"""A month of a daily snapshot: what it costs with this platform, with a plain script, and with another tool.

    python -m bench.month --documents 2000
    python -m bench.month --accounts --requests 100000

Each contender has an emulator's state of its own, and what it is charged is the emulator's list of billed rows, priced
one by one with genai-prices: neither our tables of prices nor our ledger have a say in it. `snapshot.py` makes the
days, `contenders.py` lives through them, `referee.py` counts, `report.py` says what came of it.
`accounts.py` holds the ledger's sum against the referee's over many requests of all lengths.
"""
