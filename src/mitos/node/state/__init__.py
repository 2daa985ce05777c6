"""What a node keeps on disk, in one SQLite file and beside it.

state.py         all of it, opened and closed together
persist.py       the rows as frozen values, and their form in the database
database.py      the file: transactions, typed failures, what is deferred after one
migration.py     the schema and the steps that lead to it from older ones
sandbox.py       sandboxes, the ended included, and who was forked from whom
event.py         the feed of what happens
template.py      the templates that are offered
checkpoint.py    snapshots kept for a sandbox, with their files
hibernation.py   snapshots that sandboxes wake from
idempotency.py   which request created what

A write is one transaction with the event it causes. When it fails nothing of it has happened, and
the caller gets a typed error.
"""
