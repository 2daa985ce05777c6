"""Templates: from a recipe to a warm snapshot that every sandbox starts from.

    recipe ──base image──> root filesystem ──boot──> machine ──steps, warm-up──> snapshot    (once)
    snapshot ──restore──> sandbox                                                    (every create)

../recipe.py    what a template is made of, and its content key
catalog.py      recipes by name: the built-in ones and those of the configuration file
snapshot.py     makes snapshots and finds the ones already made
warm_up.py      what is done in the booted machine before the snapshot
workload.py     starts the program of a template
templates.py    the templates that are offered; owned.py has an owner's
"""
