"""The README's example of a trained network runs as it is printed."""

import re
from pathlib import Path

import cv2
import numpy as np
from tiny_network import METADATA, save_checkpoint, some_image

README = Path(__file__).parents[1] / "README.md"


def test_the_example_of_a_trained_network_runs(tmp_path, monkeypatch, capsys):
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    [example] = [block for block in blocks if "network.predict(image)" in block]
    monkeypatch.chdir(tmp_path)
    save_checkpoint(tmp_path / "outputs" / "..." / "checkpoints" / "best.safetensors")
    image = some_image(64, 96)
    cv2.imwrite("slice.png", image[..., ::-1])
    variables = {}
    exec(compile(example, str(README), "exec"), variables)
    assert (variables["labels"] == variables["network"].predict(image)).mean() > 0.999
    shown = cv2.imread("labels.png")[..., ::-1]
    np.testing.assert_array_equal(shown, np.array(METADATA["palette"])[variables["labels"]])
    assert [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()] == METADATA["class_names"]
