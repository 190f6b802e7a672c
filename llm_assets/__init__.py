"""Tables of documents in, tables of answers out, through batch APIs at half the price of real time.

    documents.py     sources → documents, identified by content
    requests.py      documents × enrichment → requests with fingerprints
    shards.py        requests → files within the provider's limits
    submission.py    shards → batches; intent is written before the network is touched
    polling.py       which batches have ended
    answers.py       result lines → exactly one outcome per request
    retries.py       outcomes so far → what is worth sending again
    collection.py    ended batches → outcomes → the tables `enriched` and `failed`

`ledger.py` holds what is where, `store.py` the files, `providers/` the two APIs, `platform.py` wires them.
`components/` puts all of it into Dagster. docs/architecture.md has the picture.
"""
