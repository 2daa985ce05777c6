"""The only code that spawns processes, reads control groups and talks to the kernel directly.

Each module is one thing of the host: `process` (commands), `pidfd` (processes that are not our
children), `pipe` (named pipes), `cgroup` (limits and usage), `control_socket` (Unix sockets that
pass descriptors), `disk` (space), `private` (what only its owner may open).
"""
