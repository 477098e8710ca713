"""MindRecord files give a folder's samples from any thread, or one line that says what is wrong."""

import json
import shutil
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import cv2
import numpy as np
import psutil
import pytest

import fcnlab
from fcnlab.config.schema import FolderConfig
from fcnlab.core.errors import DataError
from fcnlab.data import mindrecord as reading
from fcnlab.data.folder import folder
from fcnlab.data.image_folder import Folder
from fcnlab.data.labelled_files import LabelledFiles
from fcnlab.data.mindrecord import RecordFolder, Shard
from fcnlab.experiment import assembly
from fcnlab.preparation import mindrecord_shards as writing

NAMES = ["1", "2", "10", 'Zelle ä\'s "x"', "j"]
LISTS = {"train_list": "train.txt", "val_list": "val.txt"}


def make(root, shards=1):
    """Write five pairs of several formats and sizes, as files and as records."""
    for kind in ("images", "labels"):
        (root / kind).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number, name in enumerate(NAMES):
        suffix = {"j": ".jpg", "10": ".tif"}.get(name, ".png")
        shape = (20 + number, 30)
        cv2.imencode(suffix, rng.integers(0, 256, (*shape, 3), np.uint8))[1].tofile(root / "images" / f"{name}{suffix}")
        cv2.imencode(".png", rng.integers(0, 2, shape, np.uint8))[1].tofile(root / "labels" / f"{name}.png")
    (root / "train.txt").write_text("\n".join(NAMES[:3]), encoding="utf-8")
    (root / "val.txt").write_text("\n".join(NAMES[3:]), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "SHARD_BYTES", writing.SHARD_BYTES if shards == 1 else 1)
        write(root)
    return root


def write(root):
    written = []
    for split in ("train", "val"):
        samples = Folder(FolderConfig(root=str(root), **LISTS), split)
        written.append(writing.write_split(root, split, samples))
    return written


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make(tmp_path_factory.mktemp("records") / "données 数据")


@pytest.fixture
def root(made, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(made, tmp_path / "copy")


def config(root, **keys):
    return FolderConfig(root=str(root), records=True, **keys)


def refused(root, *words):
    with pytest.raises(DataError) as caught:
        RecordFolder(config(root), "train").check()
    text = str(caught.value)
    assert "\n" not in text
    for word in words:
        assert word in text, f"{word!r} is not in {text!r}"


@pytest.mark.parametrize("shards", [1, 3])
def test_the_samples_are_those_of_the_files(tmp_path, made, shards):
    root = made if shards == 1 else make(tmp_path / "sharded", shards)
    assert len(list(root.glob("train.mindrecord?"))) == (0 if shards == 1 else 3)
    for split in ("train", "val"):
        files = Folder(FolderConfig(root=str(root), **LISTS), split)
        records = folder(config(root), split)
        assert records.names == files.names
        assert records.fingerprint() == files.fingerprint()
        records.check()
        for one, other in zip(records, files, strict=True):
            assert one.name == other.name
            np.testing.assert_array_equal(one.image, other.image)
            np.testing.assert_array_equal(one.label, other.label)


def test_they_do_without_the_files_and_from_another_place(root, tmp_path, monkeypatch):
    before = folder(config(root), "train").fingerprint()
    for kind in ("images", "labels"):
        shutil.rmtree(root / kind)
    monkeypatch.chdir(root.parent)
    records = folder(config(root.name), "train")
    records.check()
    assert records.fingerprint() == before


def test_lists_choose_among_the_samples_of_both_files(root):
    (root / "some.txt").write_text("2\nj\n", encoding="utf-8")
    assert folder(config(root, train_list="some.txt"), "train").names == ["2", "j"]
    assert len(folder(config(root, train_list="some.txt"), "val")) == 3


def test_mindspores_own_reader_reads_them(made):
    from mindspore.mindrecord import FileReader

    reader = FileReader(str(made / "val.mindrecord"))
    rows = {row["name"]: row for row in reader.get_next()}
    reader.close()
    assert bytes(rows["j"]["image"]) == (made / "images" / "j.jpg").read_bytes()
    assert bytes(rows["j"]["label"]) == (made / "labels" / "j.png").read_bytes()
    assert rows["j"]["suffix"] == ".jpg"


@pytest.mark.parametrize("has_pread", [True, False])  # Windows has none
def test_many_threads_read_at_random(made, monkeypatch, has_pread):
    if not has_pread:
        monkeypatch.delattr("os.pread")
    records = folder(config(made), "train")
    expected = [sample.fingerprint() for sample in records]
    order = np.random.default_rng(1).integers(0, len(records), 400).tolist()
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda index: records[index].fingerprint(), order))
    assert found == [expected[index] for index in order]


def test_memory_does_not_hold_the_files(tmp_path):
    paths = {str(number): tmp_path / f"{number}.png" for number in range(40)}
    for name, path in paths.items():
        path.write_bytes(bytes([int(name)]) * 2**21)
    writing.write_split(tmp_path, "train", LabelledFiles(FolderConfig(), tmp_path, list(paths), paths, paths))
    before = psutil.Process().memory_info().rss
    shard = Shard(tmp_path / "train.mindrecord")
    for row in range(40):
        assert shard.read(row, "label")[:2] == bytes([row]) * 2
    assert psutil.Process().memory_info().rss - before < 40 * 2**20


def test_what_holds_the_same_is_not_written_again(root):
    before = {path: path.stat().st_mtime_ns for path in root.glob("*.mindrecord*")}
    assert len(before) == 4
    assert write(root) == [False, False]
    assert {path: path.stat().st_mtime_ns for path in root.glob("*.mindrecord*")} == before
    path = root / "labels" / "2.png"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert write(root) == [True, False]
    assert write(root) == [False, False]
    (root / "val.mindrecord.db").unlink()
    assert write(root) == [False, True]
    assert not list(root.glob(".*"))


def test_a_smaller_number_of_shards_leaves_none_behind(root, monkeypatch):
    monkeypatch.setattr(writing, "SHARD_BYTES", 1)
    monkeypatch.setattr(writing, "_same", lambda *_: False)
    write(root)
    assert sorted(path.name for path in root.glob("val.mindrecord*"))[::2] == ["val.mindrecord0", "val.mindrecord1"]
    monkeypatch.setattr(writing, "SHARD_BYTES", 2**30)
    write(root)
    assert sorted(path.name for path in root.glob("val.mindrecord*")) == ["val.mindrecord", "val.mindrecord.db"]
    assert set(folder(config(root), "val").names) == set(NAMES[3:])


def test_a_sample_that_no_page_holds_is_refused(root, monkeypatch):
    monkeypatch.setattr(writing, "_PAGES", (2**10, 2**10))
    monkeypatch.setattr(writing, "_same", lambda *_: False)
    with pytest.raises(DataError, match="a MindRecord page at most 1,024: leave out records=true"):
        write(root)


@pytest.mark.parametrize("name", ["train.mindrecord", "val.mindrecord", "train.mindrecord.db"])
def test_a_missing_file_is_named(root, name):
    (root / name).unlink()
    refused(root, f"there is no file '{root / name}'", "records=true")


def test_a_missing_shard_is_named(tmp_path):
    root = make(tmp_path / "data", 3)
    (root / "train.mindrecord1").unlink()
    refused(root, f"there is no file '{root / 'train.mindrecord1'}', which belongs to")


@pytest.mark.parametrize("kept", [0, 5, 300, 2**20, 2**20 + 500, -1])
def test_a_truncated_file_is_one_line(root, kept):
    path = root / "train.mindrecord"
    length = reading_end(path) - 1 if kept == -1 else kept
    with path.open("r+b") as file:
        file.truncate(length)
    refused(root, str(path), "is damaged or truncated", "copy it again, or make it again")


def reading_end(path):
    with closing(sqlite3.connect(f"{path}.db")) as database:
        [row] = database.execute("SELECT MAX(PAGE_ID_BLOB), MAX(PAGE_OFFSET_BLOB_END) FROM INDEXES").fetchall()
    header = reading.read_header(path)
    return header["header_size"] + row[0] * header["page_size"] + row[1]


@pytest.mark.parametrize("kept", [0, 10, 100, 5000])
def test_a_truncated_index_is_one_line(root, kept):
    path = root / "train.mindrecord.db"
    path.write_bytes(path.read_bytes()[:kept])
    refused(root, str(path), "is damaged or truncated", "copy it again, or make it again")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE INDEXES SET PAGE_ID_BLOB = 1000000000000",
        "UPDATE INDEXES SET PAGE_OFFSET_BLOB = -8",
        "UPDATE INDEXES SET PAGE_OFFSET_BLOB_END = 9223372036854775807",
        "UPDATE INDEXES SET image_bytes_0 = image_bytes_0 + 1",
        "UPDATE INDEXES SET image_bytes_0 = image_bytes_0 + 1, label_bytes_0 = label_bytes_0 - 1",
        "UPDATE INDEXES SET PAGE_OFFSET_BLOB = 'x'",
        "UPDATE INDEXES SET name_0 = '../../' || name_0",
        "UPDATE INDEXES SET name_0 = NULL",
        "UPDATE INDEXES SET suffix_0 = '.sh'",
        "ALTER TABLE INDEXES RENAME TO OTHER",
        "ALTER TABLE INDEXES RENAME TO OTHER; CREATE VIEW INDEXES AS SELECT * FROM OTHER",
    ],
)
def test_an_index_that_does_not_fit_is_one_line(root, statement):
    with closing(sqlite3.connect(root / "train.mindrecord.db")) as database:
        database.executescript(statement)
    refused(root, "is damaged or truncated", "copy it again, or make it again")


@pytest.mark.parametrize(
    "change",
    [
        {"shard_addresses": ["../../etc/passwd"]},
        {"shard_addresses": []},
        {"shard_addresses": 3},
        {"page_size": 0},
        {"page_size": "x"},
        {"header_size": -1},
        {"schema": []},
    ],
)
def test_a_header_that_does_not_fit_is_one_line(root, change):
    path = root / "train.mindrecord"
    header = json.dumps({**reading.read_header(path), **change}).encode()
    with path.open("r+b") as file:
        file.write(len(header).to_bytes(8, "little") + header)
    refused(root, str(path), "is damaged or truncated")


def test_an_index_of_another_file_is_found_at_the_first_sample(root):
    (root / "val.mindrecord").write_bytes((root / "train.mindrecord").read_bytes())
    with pytest.raises(DataError, match=r"is not where its index says|is damaged or truncated"):
        RecordFolder(config(root), "val").check()


def test_a_damaged_image_is_named(root):
    path = root / "train.mindrecord"
    data = path.read_bytes()
    image = (root / "images" / "2.png").read_bytes()
    assert data.count(image) == 1
    path.write_bytes(data.replace(image, image[:100] + bytes(len(image) - 100)))
    refused(root, f"image '{path}: images/2.png' is damaged or truncated")


def test_a_sample_in_both_files_is_refused(root):
    for name in ("train", "val"):
        for end in ("", ".db"):
            shutil.copy(root / f"train.mindrecord{end}", root / f"{name}.mindrecord{end}.new")
    for end in ("", ".db"):
        (root / f"val.mindrecord{end}.new").replace(root / f"val.mindrecord{end}")
    header = reading.read_header(root / "val.mindrecord")
    data = json.dumps({**header, "shard_addresses": ["val.mindrecord"]}).encode()
    with (root / "val.mindrecord").open("r+b") as file:
        file.write(len(data).to_bytes(8, "little") + data)
    refused(root, "both hold a sample '1'")


def test_a_link_out_of_the_root_is_refused(root, tmp_path):
    (root / "train.mindrecord").rename(tmp_path / "elsewhere")
    (root / "train.mindrecord").symlink_to(tmp_path / "elsewhere")
    refused(root, "is a link to", str(tmp_path / "elsewhere"))


def test_a_second_start_reads_no_sample(root, monkeypatch):
    from fcnlab.data import file_times

    monkeypatch.setattr(file_times, "SETTLED", 0)
    words = ["dataset=folder", f"dataset.root={root}", "dataset.records=true", "dataset.cache_mib=0"]
    prints = [split.fingerprint() for split in assembly.build_data(fcnlab.compose(words))]
    monkeypatch.setattr(Shard, "read", None)
    assert [split.fingerprint() for split in assembly.build_data(fcnlab.compose(words))] == prints
