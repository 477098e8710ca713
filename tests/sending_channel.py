"""Calls to the sending process about one journal."""

import os

from fcnlab.tracking import sending_client
from fcnlab.tracking.sending_client import wait_for


def open_channel(folder, uri):
    channel = sending_client.shared().open_channel()
    where = {"folder": str(folder), "directory": os.getcwd(), "environment": dict(os.environ), "uri": uri}
    wait_for(channel.call("open", **where, experiment="study", interval=1000.0))
    return channel


def end(channel):
    return wait_for(channel.call("end", status="FINISHED", patience=30.0))
