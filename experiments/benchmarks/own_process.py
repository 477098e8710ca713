"""Call a benchmark script in a process of its own, so that neither memory nor caches are shared."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any


def result_of(script: str, *flags: str, environment: Mapping[str, str] | None = None) -> Any:
    """Run a script and return what the last line that it prints holds as JSON.

    Raises:
        subprocess.CalledProcessError: If the script fails.
    """
    command = [sys.executable, script, *flags]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout
    return json.loads(output.splitlines()[-1])
