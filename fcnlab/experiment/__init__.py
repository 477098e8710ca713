"""From a configuration to a training, and from what was recorded back to a configuration."""
