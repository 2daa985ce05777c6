"""The life of sandboxes: one writer of their phase, and the verbs beside it.

../phase.py      the table: phase x event -> phase
sandbox.py       one live sandbox: its row, its machine, what is open on it
lifecycle.py     the only writer of a row: begins, moves, renames, ends
registry.py      the living by owner and id; who may take an id
deadline.py      calls back when a deadline passes
supervisor.py    gives sandboxes their machines, watches over them, takes them away
suspension.py    pause, resume, hibernate, wake
checkpointing.py checkpoint, restore
    relatives.py     promote, compare
creation.py      create, fork
    recovery.py      what an earlier server left
"""
