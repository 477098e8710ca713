"""The README's examples of a trained network run as they are printed, and its links lead somewhere."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from mindspore import Tensor
from tiny_network import ARCH, METADATA, save_checkpoint, some_image

import fcnlab
from fcnlab import config as configuration
from fcnlab.export import export

README = Path(__file__).parents[1] / "README.md"


def example_with(words):
    """Return the README's block of Python that holds some words."""
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    [example] = [block for block in blocks if words in block]
    return example


def test_the_example_of_a_trained_network_runs(tmp_path, monkeypatch, capsys):
    example = example_with("network.predict(image)")
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


@pytest.mark.slow  # the network of width 1 has 134 million parameters
def test_the_example_in_pytorch_computes_the_same(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    pytest.importorskip("torchvision")
    monkeypatch.chdir(tmp_path)
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    more = {"normalisation": {"mean": mean, "std": std}, "class_names": [], "palette": []}
    checkpoint = save_checkpoint(tmp_path / "best.safetensors", {**ARCH, "num_classes": 21, "width": 1.0}, more)
    words = [f"checkpoint={checkpoint}", "format=torch", "layout=torchvision"]
    export(configuration.compose(words, "export"))
    variables = {}
    exec(compile(example_with("torchvision.models.vgg16_bn()"), str(README), "exec"), variables)
    images = np.random.default_rng(0).standard_normal((1, 3, 97, 130), np.float32)
    expected = fcnlab.load(checkpoint)(Tensor(images)).asnumpy()
    with torch.no_grad():
        found = variables["network"](torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max() / 10)


def anchor(heading):
    """Return the fragment by which GitHub links to a heading."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


DOCUMENTS = [
    README,
    README.with_name("README.zh.md"),
    *sorted(README.parent.glob("experiments/**/README.md")),
    *sorted(README.parent.glob(".github/*.md")),
]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(README.parent)))
def test_every_link_leads_somewhere(path):
    """A link to a section names a heading, and one to a file a file that is there."""
    text = re.sub(r"```.*?```|`[^`\n]*`", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://")):
            continue
        file, _, fragment = target.partition("#")
        linked = path.parent / file if file else path
        assert linked.exists(), target
        if fragment:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            assert fragment in {anchor(heading) for heading in headings}, target


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(README.parent)))
def test_every_file_that_is_named_is_there(path):
    named = re.findall(r"`((?:tests|fcnlab|experiments|conf)/[\w/.-]*)`", path.read_text(encoding="utf-8"))
    assert [name for name in named if not (README.parent / name).exists()] == []
