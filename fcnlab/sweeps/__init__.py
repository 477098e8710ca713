"""A multirun as one thing: its identity, a process for each of its trials, what is left to do, and its result.

Hydra's sweepers and launchers decide which trials there are and where they run. A trial's job (`fcnlab.sweeps.job`),
wherever a launcher runs it, starts the training in a process of its own (`fcnlab.sweeps.process`), so that a trial that
is killed costs itself alone. That process writes the trial's result into the sweep's folder (`fcnlab.sweeps.result`).
The job and the search read it there, and so does the process that the user started (`fcnlab.sweeps.sweep`), which keeps
the parent run.
"""
