"""Machines for sandboxes and templates: made, given an identity, kept ready, ended.

running.py   from a snapshot to a machine that has proved who it is; and its end
token.py     by which a later server takes its link over
launcher.py  machines from a template, from a snapshot on disk, or as copies of a running one
pool.py      what is kept ready, so that both are fast
gather.py    several things made at the same time, all or none

Knows no sandbox: whoever asks says which machine, which snapshot and which id.
"""
