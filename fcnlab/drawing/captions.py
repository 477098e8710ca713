"""Shortens names to what fits into a picture or a table."""

LONGEST = 28
"""The number of characters for which a picture has room."""


def caption(name: str, longest: int = LONGEST) -> str:
    """Return a name on one line of at most ``longest`` characters; the end stays, as long names often differ there."""
    name = " ".join(name.split())
    return name if len(name) <= longest else f"{name[: longest // 2]}…{name[1 - longest // 2 :]}"
