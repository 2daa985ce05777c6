"""The client of the agent inside a sandbox, and all that only speaks to it.

client.py      the agent's operations as calls: run a command, read a file, run a cell
link.py        many streams over one machine's bytes; stream.py is one of them
command.py     running commands; tunnel.py connections; file.py, process.py what the agent tells
accept.py      connections that programs inside make to the agent
identity.py    what makes a restored machine itself, and the check that it took it
answer.py      the agent's refusals as errors of the catalogue
transfer/      trees as tar streams, and what differs between two

Knows no sandbox, no template and no deadline: `node` decides whose agent is asked for what.
"""
