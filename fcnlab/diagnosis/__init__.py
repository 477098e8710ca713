"""What ``fcnlab doctor`` looks at: versions, the machine, compiled operators, caches and the tracking store."""
