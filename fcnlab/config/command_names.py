"""The names of the commands, and the keys of those that have no schema."""

COMMANDS = {
    "prepare": "make a data set that trains from your images and labels",
    "train": "train a network, or with -m a sweep of several",
    "evaluate": "measure a trained network on labelled images",
    "predict": "label images with a trained network",
    "compare": "say which of several trainings is better, and how sure that is",
    "verify": "train the first steps of a run again, and say what agrees with its record",
    "export": "write a trained network as MindIR, ONNX, torch or safetensors",
    "track": "send the journals of trainings that are over to MLflow",
    "doctor": "say what a training here would use, and what is wrong with it",
    "completion": "print the lines by which a shell completes these words",
}
"""What each command does. A command is the module of its name."""

VERIFY_KEYS = ("run", "steps", "tolerance", "output", "tracking.uri")
"""The keys of ``verify``, which Hydra does not configure."""

BUNDLE_KEYS = ("run", "output", "tracking.uri")
"""Those of them that ``verify bundle`` takes."""
