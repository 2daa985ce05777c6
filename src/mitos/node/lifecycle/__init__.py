"""The life of sandboxes: one writer of their phase, and the verbs beside it.

../phase.py      the table: phase x event -> phase
sandbox.py       one live sandbox: its row, its machine, what is open on it
lifecycle.py     the only writer of a row: begins, moves, renames, ends
registry.py      the living by owner and id; who may take an id
deadline.py      calls back when a deadline passes
supervisor.py    gives sandboxes their machines, wakes, watches over and ends them
creation.py      create, fork
suspension.py    pause, resume, hibernate
checkpointing.py checkpoint, restore
relatives.py     promote, compare
freeze.py        holds a sandbox's agent at a frame boundary while it is snapshotted
recovery.py      what an earlier server left
"""
