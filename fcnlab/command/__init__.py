"""What all commands have in common: log lines, one-line errors, exit codes and signals."""

from __future__ import annotations

from fcnlab.command.leaving import EXIT_ERROR, EXIT_INTERRUPTED, OUT_OF_MEMORY, leave, leave_if_out_of_memory
from fcnlab.command.log import ConsoleHandler, LogFile, visible_log
from fcnlab.command.running import run, word

__all__ = [
    "EXIT_ERROR",
    "EXIT_INTERRUPTED",
    "OUT_OF_MEMORY",
    "ConsoleHandler",
    "LogFile",
    "leave",
    "leave_if_out_of_memory",
    "run",
    "visible_log",
    "word",
]
