"""What runs sandboxes. Each folder here is one engine; the files beside them are what all share.

select.py    the door: finds an engine by name; nothing above this package names one itself
kind.py      what the door knows of an engine before it is opened
facts.py     what is true of an engine on every machine
base.py      the seam: the protocol that every engine keeps

A new engine is a folder with a `kind.py`, and a row in `select`; the import contract of this
package asks for its name too.
"""
