"""The path from a configuration to a training, and from a recorded training back to a configuration."""
