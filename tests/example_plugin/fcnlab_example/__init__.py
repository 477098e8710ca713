"""A package of somebody else's, with a plug-in of every kind. Each has keys of its own, declared by a dataclass."""
