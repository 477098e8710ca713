"""What every other room uses and no user sees: errors, files, locks, interrupts, the machine and its caches."""
