"""An example of another package, with a plug-in of every kind; a dataclass declares the keys of each."""
