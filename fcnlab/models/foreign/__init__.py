"""Weights that other packages wrote, as a start for a network of this one.

A file goes through three steps: `read` gives its arrays by name, `recognise` gives them the names of an `FCN`, and
`initialise` fits them to a network and says of each parameter where it came from.
"""

from __future__ import annotations

from fcnlab.models.foreign.initialisation import Initialisation, initialise
from fcnlab.models.foreign.input_convention import InputConvention
from fcnlab.models.foreign.layouts import recognise
from fcnlab.models.foreign.reading import read
from fcnlab.models.foreign.weights_file import WeightsFile

__all__ = ["Initialisation", "InputConvention", "WeightsFile", "initialise", "read", "recognise"]
