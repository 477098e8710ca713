"""A multirun as one thing: its identity, a process for each of its trials, what is left to do, and its result.

Hydra's sweepers and launchers decide which trials there are and where they run. A trial's job, wherever it runs, starts
the training in a process of its own (`fcnlab.sweeps.trial`), so that one that is killed costs itself alone. The process
that the user started (`fcnlab.sweeps.sweep`) keeps the parent run.
"""
