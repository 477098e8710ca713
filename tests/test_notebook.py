"""The notebook among the examples: its words compose, and a real kernel runs all of it."""

import json
import os
import re
import sys
from pathlib import Path

import pytest
from conftest import user_environment

from fcnlab import compose

NOTEBOOK = Path(__file__).parents[1] / "experiments" / "examples" / "notebook.ipynb"


def sources(kind):
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == kind]


def test_its_cells_are_python_and_its_words_are_known_keys():
    found = sources("code")
    for source in found:
        compile(source, "cell", "exec")
    words = re.findall(r'"((?:arch|dataset|trainer|optimizer|tracking)\.[\w.]+=[\w.e-]+)"', "\n".join(found))
    assert len(words) > 8
    config = compose(words)
    assert config.tracking.experiment == "notebook"


def test_it_is_committed_without_outputs():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)


@pytest.mark.slow
def test_a_kernel_runs_it(tmp_path):
    nbclient = pytest.importorskip("nbclient", reason="the extra `notebook` has it")
    pytest.importorskip("ipykernel", reason="the extra `notebook` has it")
    import nbformat
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    path = os.pathsep.join(
        filter(None, [str(NOTEBOOK.parents[2]), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    )
    kernel = AsyncKernelManager(kernel_name="python3")
    kernel._kernel_spec = KernelSpec(argv=command, display_name="Python 3", language="python")
    client = nbclient.NotebookClient(notebook, km=kernel, timeout=600, resources={"metadata": {"path": str(tmp_path)}})
    client.execute(env={**user_environment(), "PYTHONPATH": path})
    text, pictures, tables = "", 0, 0
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            text += output.get("text", "") + output.get("data", {}).get("text/plain", "")
            data = output.get("data", {})
            pictures += "image/png" in data
            tables += "<table" in data.get("text/html", "")
    assert pictures == 4
    assert tables >= 2  # a result and a network
    assert text.count("(best)") >= 5
    assert "fcn32s" in text
    assert len(list((tmp_path / "outputs").glob("20*/*/journal.jsonl"))) == 5
