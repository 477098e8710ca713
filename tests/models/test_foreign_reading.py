"""Files of other packages: what is in them comes out as float32; what is damaged or hostile is refused in one line."""

import json
import os
import pickle
import sys
import zipfile

import mindspore as ms
import numpy as np
import pytest
import weight_files as files
from safetensors.numpy import save_file

from fcnlab.core.errors import CheckpointError
from fcnlab.models.checkpoint import save_parameters
from fcnlab.models.foreign import read

KERNEL = np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2) - 7.5
BIAS = np.array([0.25, -3], np.float32)
ARRAYS = {"conv.weight": KERNEL, "conv.bias": BIAS}


def refusal(path):
    with pytest.raises(CheckpointError) as caught:
        read(path)
    text = str(caught.value)
    assert "\n" not in text
    assert str(path) in text
    return text


def check(path, kind, expected=ARRAYS):
    file = read(path)
    assert file.kind == kind
    assert file.arrays.keys() == expected.keys()
    for name, array in expected.items():
        assert file.arrays[name].dtype == np.float32
        np.testing.assert_array_equal(file.arrays[name], array)
    return file


def write(path, content):
    path.write_bytes(content)
    return path


# Every format, under a name that says nothing


def test_pytorch(tmp_path):
    check(files.torch_file(tmp_path / "a", ARRAYS), "PyTorch")


def test_pytorch_by_pytorch_itself(tmp_path):
    torch = pytest.importorskip("torch")
    base = torch.randn(12, 10)
    tensors = {
        "base": base,
        "turned": base.t(),
        "cut": base[3:9:2, 5:],
        "half": base.half(),
        "bfloat16": base.bfloat16(),
        "repeated": torch.ones(1, 4).expand(3, 4),
        "scalar": torch.tensor(5),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(base[0]),
    }
    expected = {name: tensor.detach().float().numpy() for name, tensor in tensors.items()}
    torch.save(tensors, tmp_path / "a")
    check(tmp_path / "a", "PyTorch", expected)
    torch.save({"epoch": 3, "best": np.float64(0.5), "state_dict": tensors, "optimizer": {"state": {0: {}}}},
               tmp_path / "b")  # fmt: skip
    assert check(tmp_path / "b", "PyTorch", expected).metadata == {"state_dict": "state_dict"}
    torch.save(tensors, tmp_path / "c", _use_new_zipfile_serialization=False)
    assert "before version 1.6" in refusal(tmp_path / "c")
    torch.save(tensors, tmp_path / "c", _use_new_zipfile_serialization=False, pickle_protocol=4)
    assert "before version 1.6" in refusal(tmp_path / "c")
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "e")
    assert "torch.save(torch.jit.load('script.pt').state_dict(), 'weights.pth')" in refusal(tmp_path / "e")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "d")
    assert "torch.nn.modules.linear.Linear" in refusal(tmp_path / "d")


@pytest.mark.parametrize(
    ("shape", "strides", "offset", "expected"),
    [
        ((3, 2), (1, 3), 0, [[0, 3], [1, 4], [2, 5]]),
        ((2,), (2,), 1, [1, 3]),
        ((2, 3), (0, 1), 3, [[3, 4, 5], [3, 4, 5]]),
        ((), (), 4, 4),
        ((0, 7), (7, 1), 0, np.zeros((0, 7))),
    ],
)
def test_views_of_pytorchs_storages(tmp_path, shape, strides, offset, expected):
    array = np.arange(6, dtype=np.float32)
    tensor = files.torch_tensor("0", array, shape, strides, offset)
    path = files.torch_file(tmp_path / "a", {"x": array}, files.torch_dict({"view": tensor}))
    check(path, "PyTorch", {"view": np.array(expected, np.float32)})


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int64])
def test_other_types_of_pytorch(tmp_path, dtype):
    array = np.array([1.5, -2, 70000]).astype(dtype) if dtype is not np.float16 else np.array([1.5, -2], dtype)
    check(files.torch_file(tmp_path / "a", {"x": array}), "PyTorch", {"x": array.astype(np.float32)})


def test_bfloat16_of_pytorch(tmp_path):
    bits = (np.array([1.5, -2.0, 3e38], np.float32).view(np.uint32) >> 16).astype(np.uint16)
    expected = (bits.astype(np.uint32) << 16).view(np.float32)
    check(files.torch_file(tmp_path / "a", {"x": bits}), "PyTorch", {"x": expected})


def test_safetensors_of_others_and_ours(tmp_path):
    save_file(ARRAYS, tmp_path / "a")
    check(tmp_path / "a", "safetensors")
    parameters = {name: ms.Parameter(ms.Tensor(array), name=name) for name, array in ARRAYS.items()}
    save_parameters(tmp_path / "b", parameters, {"class_names": ["a", "b"]})
    assert check(tmp_path / "b", "safetensors").metadata == {"class_names": ["a", "b"]}
    content = bytearray((tmp_path / "b").read_bytes())
    content[-1] ^= 1
    assert "checksum" in refusal(write(tmp_path / "c", content))


def test_bfloat16_of_safetensors(tmp_path):
    entries = {
        "a": {"dtype": "BF16", "shape": [2, 1], "data_offsets": [0, 4]},
        "b": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]},
    }
    header = json.dumps(entries).encode()
    data = np.array([0x3FC0, 0xC000], "<u2").tobytes() + np.array([7], "<f4").tobytes()
    write(tmp_path / "a", len(header).to_bytes(8, "little") + header + data)
    check(tmp_path / "a", "safetensors", {"a": np.array([[1.5], [-2]]), "b": np.array([7])})
    write(tmp_path / "b", (tmp_path / "a").read_bytes().replace(b"BF16", b"F8_X"))
    refusal(tmp_path / "b")


@pytest.mark.parametrize("name", ["net.ckpt", "a"])
def test_mindspore(tmp_path, name):
    ms.save_checkpoint([{"name": key, "data": ms.Tensor(array)} for key, array in ARRAYS.items()],
                       str(tmp_path / "net.ckpt"))  # fmt: skip
    (tmp_path / "net.ckpt").rename(tmp_path / name)
    check(tmp_path / name, "MindSpore")
    content = (tmp_path / name).read_bytes()
    refusal(write(tmp_path / name, content[:-3]))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_numpy(tmp_path, save):
    save(tmp_path / "a.npz", turned=KERNEL.T, single=np.float64(3), **ARRAYS)
    check(tmp_path / "a.npz", "numpy", {"turned": KERNEL.T, "single": np.float32(3), **ARRAYS})


@pytest.mark.parametrize("how", [{}, {"raw": False}, {"half": True}, {"bfloat16": True}], ids=str)
def test_onnx(tmp_path, how):
    tensors = [files.onnx_tensor(name, array, **how) for name, array in ARRAYS.items()]
    metadata = {"fcnlab": '{"class_names": ["a"]}', "other": "{"}
    file = check(write(tmp_path / "a", files.onnx_file(tensors, metadata=metadata)), "ONNX")
    assert file.metadata == {"class_names": ["a"]}


def test_onnx_by_onnx_itself(tmp_path):
    onnx = pytest.importorskip("onnx")
    constant = onnx.helper.make_node("Constant", [], ["c"], value=onnx.numpy_helper.from_array(BIAS, "c"))
    nodes = [constant, onnx.helper.make_node("Conv", ["x", "conv.weight", "c"], ["y"])]
    info = onnx.helper.make_empty_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes, "g", [info("x")], [info("y")], [onnx.numpy_helper.from_array(KERNEL, "conv.weight")]
    )
    onnx.save(onnx.helper.make_model(graph), str(tmp_path / "a"))
    file = check(tmp_path / "a", "ONNX", {"c": BIAS, "conv.weight": KERNEL})
    assert file.convolutions == [{"weight": "conv.weight", "bias": "c"}]


def test_onnx_tells_the_order_of_its_convolutions(tmp_path):
    names = ("w1", "b1", "w2", "b2", "gamma", "beta", "mean", "variance")
    tensors = [files.onnx_tensor(name, KERNEL if name[0] == "w" else BIAS) for name in names]
    nodes = [
        files.onnx_node("Conv", ["x", "w2"], ["y"]),
        files.onnx_node("Add", ["y", "b2"], ["z"]),
        files.onnx_node("Conv", ["z", "w1", "b1"], ["u"]),
        files.onnx_node("BatchNormalization", ["u", "gamma", "beta", "mean", "variance"], ["v"]),
    ]
    file = read(write(tmp_path / "a", files.onnx_file(tensors, nodes)))
    norm = {"gamma": "gamma", "beta": "beta", "moving_mean": "mean", "moving_variance": "variance"}
    assert file.convolutions == [{"weight": "w2", "bias": "b2"}, {"weight": "w1", "bias": "b1", **norm}]


@pytest.mark.parametrize("version", [1, 2])
def test_caffe(tmp_path, version):
    layers = {"conv": [KERNEL, BIAS], "scale": [BIAS]}
    expected = {**ARRAYS, "scale.weight": BIAS}
    if version == 1:
        expected = {name: array.reshape((1,) * (4 - array.ndim) + array.shape) for name, array in expected.items()}
    check(write(tmp_path / "a", files.caffe_file(layers, version)), "Caffe", expected)


def test_keras(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a", "w") as file:
        file["conv/kernel:0"], file["conv/bias:0"] = KERNEL, BIAS.astype(np.float64)
        file["steps"] = 3
        file.attrs["layer_names"] = ["conv"]
    check(tmp_path / "a", "Keras", {"conv/kernel:0": KERNEL, "conv/bias:0": BIAS})


def test_keras_without_h5py_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    assert "pip install 'fcnlab[weights]'" in refusal(write(tmp_path / "a.h5", b"\x89HDF\r\n\x1a\n" + bytes(100)))


# What is refused


def test_what_is_no_file_of_weights(tmp_path):
    assert "no such file" in refusal(tmp_path / "nowhere.pth")
    assert "known are safetensors" in refusal(write(tmp_path / "a.pth", b"<!DOCTYPE html>"))
    refusal(write(tmp_path / "b.pth", b""))
    with zipfile.ZipFile(tmp_path / "c.pth", "w") as archive:
        archive.writestr("readme.txt", "x")
    assert "zip of something else" in refusal(tmp_path / "c.pth")
    assert "no weights" in refusal(write(tmp_path / "d.onnx", files.onnx_file([])))


MAGIC_NUMBER = 0x1950A86A20F9469CFC6C  # of PyTorch before 1.6


@pytest.mark.parametrize(
    ("content", "way_out"),
    [
        (pickle.dumps(MAGIC_NUMBER, 2) + pickle.dumps(1001, 2), "torch.save(torch.load('old.pth'"),
        (pickle.dumps(MAGIC_NUMBER, 4) + pickle.dumps(1001, 4), "torch.save(torch.load('old.pth'"),
        (b"sys_info".ljust(257, b"\0") + b"ustar  \0".ljust(400, b"\0"), "torch.save(torch.load('old.pth'"),
        (pickle.dumps(ARRAYS, 5), "is not opened; write its arrays with torch.save(state_dict, 'weights.pth')"),
    ],
)
def test_what_pytorch_and_python_write_otherwise(tmp_path, content, way_out):
    assert way_out in refusal(write(tmp_path / "a.pth", content))


@pytest.mark.parametrize(
    ("member", "way_out"),
    [
        ("archive/code/__torch__.py", "torch.save(torch.jit.load('script.pt').state_dict(), 'weights.pth')"),
        ("archive/constants.pkl", "torch.save(torch.jit.load('script.pt').state_dict(), 'weights.pth')"),
    ],
)
def test_a_program_is_not_a_file_of_weights(tmp_path, member, way_out):
    path = files.torch_file(tmp_path / "a.pt", ARRAYS)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(member, "x")
    assert way_out in refusal(path)
    with zipfile.ZipFile(tmp_path / "b.pt2", "w") as archive:
        archive.writestr("b/data/weights/weight_0", bytes(8))
    assert "torch.save(torch.export.load('program.pt2').state_dict, 'weights.pth')" in refusal(tmp_path / "b.pt2")


def test_a_checkpoint_of_several_networks_gives_the_first_and_says_so(tmp_path):
    keys = {name: files.torch_tensor(str(index), array) for index, (name, array) in enumerate(ARRAYS.items())}
    average = files.torch_dict({"conv.weight": keys["conv.weight"], "conv.bias": keys["conv.bias"]})
    pickled = files.torch_dict({"small": files.torch_dict({"conv.bias": keys["conv.bias"]}),
                                "model": files.torch_dict(keys), "average": average})  # fmt: skip
    file = check(files.torch_file(tmp_path / "a", ARRAYS, pickled), "PyTorch")
    assert file.metadata == {"state_dict": "model", "other_state_dicts": ["average"]}
    pickled = files.torch_dict({"small": files.torch_dict({"conv.bias": keys["conv.bias"]}),
                                "model": files.torch_dict(keys)})  # fmt: skip
    assert check(files.torch_file(tmp_path / "a", ARRAYS, pickled), "PyTorch").metadata == {"state_dict": "model"}


class Bomb:
    def __reduce__(self):
        return os.system, ("touch stray",)


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_pickle_that_would_run_something(tmp_path, monkeypatch, protocol, wrapped):
    monkeypatch.chdir(tmp_path)
    bomb = pickle.dumps({"a": Bomb()} if wrapped else Bomb(), protocol)[2:-1]
    files.torch_file(tmp_path / "a.pth", ARRAYS, bomb)
    assert "it asks for posix.system" in refusal(tmp_path / "a.pth")
    assert [path.name for path in tmp_path.iterdir()] == ["a.pth"]


def test_a_checkpoint_as_the_state_of_a_class_is_refused(tmp_path):
    refusal(files.torch_file(tmp_path / "a", {}, b"cbuiltins\ndict\n)\x81"))  # NEWOBJ
    refusal(files.torch_file(tmp_path / "b", {}, b"cbuiltins\neval\n"))


def test_a_pickle_of_containers_that_hold_each_other_is_no_trap(tmp_path):
    itself = b"}q\x00X\x01\x00\x00\x00ah\x00s"
    levels = b"}" + b"".join(b"q%c}(X\x01\x00\x00\x00ah%cX\x01\x00\x00\x00bh%cu" % (n, n, n) for n in range(1, 60))
    for name, pickled in (("a", itself), ("b", levels)):
        assert "no tensors by name" in refusal(files.torch_file(tmp_path / name, {}, pickled))


@pytest.mark.parametrize(
    "change",
    [{"shape": (5, 5)}, {"offset": 3}, {"strides": (100, 1, 1, 1)}, {"size": 10**9}, {"shape": (-1, 3)},
     {"shape": (2, 3), "strides": (1,)}, {"shape": (2**31 - 1,) * 3, "strides": (0, 0, 0)}],
    ids=str,
)  # fmt: skip
def test_tensors_that_reach_beyond_their_storage(tmp_path, change):
    tensor = files.torch_tensor("0", KERNEL, **change)
    refusal(files.torch_file(tmp_path / "a", {"x": KERNEL}, files.torch_dict({"x": tensor})))


def test_an_archive_that_claims_more_than_it_has(tmp_path):
    with zipfile.ZipFile(tmp_path / "a", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00" + bytes(2**24))
    assert "claims arrays" in refusal(tmp_path / "a")
    np.savez(tmp_path / "b.npz", x=np.array([Bomb()], dtype=object), allow_pickle=True)
    refusal(tmp_path / "b.npz")


def test_onnx_with_its_weights_elsewhere(tmp_path):
    tensor = files.number(1, 2) + files.number(2, 1) + files.content(8, "a") + files.number(14, 1)
    assert "save" in refusal(write(tmp_path / "a", files.onnx_file([tensor])))


def test_keras_with_its_weights_elsewhere(tmp_path):
    h5py = pytest.importorskip("h5py")
    (tmp_path / "secret").write_bytes(bytes(64))
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = KERNEL
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", (16,), "f4", external=[(str(tmp_path / "secret"), 0, 64)])
    assert "another file" in refusal(tmp_path / "a.h5")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["x"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "x")
    assert "no weights" in refusal(tmp_path / "b.h5")
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file.create_dataset("x", (2**40,), "f4", chunks=(1024,))
    assert "claims arrays" in refusal(tmp_path / "c.h5")


@pytest.mark.parametrize("name", ["caffe", "onnx", "torch", "npz"])
def test_what_is_cut_off(tmp_path, name):
    path = tmp_path / "whole"
    if name == "caffe":
        path.write_bytes(files.caffe_file({"conv": [KERNEL, BIAS]}))
    elif name == "onnx":
        path.write_bytes(files.onnx_file([files.onnx_tensor("a", KERNEL)]))
    elif name == "torch":
        files.torch_file(path, ARRAYS)
    else:
        with path.open("wb") as file:
            np.savez(file, **ARRAYS)
    content = path.read_bytes()
    for length in range(20, len(content) - 1, max(1, len(content) // 40)):
        refusal(write(tmp_path / "cut", content[:length]))


def test_a_folder_is_no_file_and_the_message_says_which_one_is_meant(tmp_path):
    with pytest.raises(CheckpointError, match=r": is a folder; give the file of weights, such as checkpoints/best"):
        read(tmp_path)
    with pytest.raises(CheckpointError, match=r"none\.pth: no such file of weights"):
        read(tmp_path / "none.pth")
