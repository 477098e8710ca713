"""Says whether a tracking store can be reached, without making one."""

from __future__ import annotations

from fcnlab.core.credentials import redact
from fcnlab.core.errors import TrackingError
from fcnlab.tracking.address import database_file, settled, store_uri
from fcnlab.tracking.run_reader import RunReader


def describe_store(uri: str | None) -> tuple[bool, str]:
    """Return whether a store can be used, and its address with what is in it, or with what is wrong.

    Args:
        uri: The address as ``tracking.uri`` takes it; None for the one that a training here would use.
    """
    try:
        address = settled(store_uri(uri))
        shown = redact(address)
        file = database_file(address)
        if file is not None and not file.exists():
            return True, f"{shown}: the first training makes it"
        count = RunReader(address).count_experiments()
    except TrackingError as error:
        return False, str(error)
    return True, f"{shown}: {count} experiment{'' if count == 1 else 's'}"
