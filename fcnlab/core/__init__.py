"""The ground floor, which every other package may use: errors, files, locks, signals, the machine and its caches."""
