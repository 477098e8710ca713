"""The limit of a container, read from made-up control groups."""

import pytest

from fcnlab.core import device, environment, processor
from fcnlab.core.cgroups import processor_quota

SECOND = "31 23 0:28 {root} {point} rw,relatime shared:1 - cgroup2 cgroup2 rw,nsdelegate"
FIRST = "32 31 0:29 {root} {point} rw,relatime - cgroup cgroup rw,cpu,cpuacct"
MEMORY = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory"
DISK = "23 1 8:1 / / rw,relatime - ext4 /dev/root rw"


@pytest.fixture
def machine(tmp_path):
    """A function that makes the files of a process: its groups, its mounts, and what each group's files say."""

    def make(groups, mounts, files):
        self = tmp_path / "proc" / "self"
        self.mkdir(parents=True)
        (self / "cgroup").write_text("".join(f"{line}\n" for line in groups))
        (self / "mountinfo").write_text("".join(f"{line}\n" for line in (DISK, MEMORY, *mounts)))
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n")
        return tmp_path

    return make


def second(root="/", point="/sys/fs/cgroup"):
    return SECOND.format(root=root, point=point)


def first(root="/", point="/sys/fs/cgroup/cpu,cpuacct"):
    return FIRST.format(root=root, point=point)


@pytest.mark.parametrize(
    ("group", "files", "expected"),
    [
        ("/", {"cpu.max": "200000 100000"}, 2),  # a container that sees its own group as the top
        ("/", {"cpu.max": "max 100000"}, None),
        ("/", {"cpu.max": "50000 100000"}, 0.5),
        ("/", {}, None),  # no container: the top has no such file
        ("/", {"cpu.max": "nonsense"}, None),
        ("/", {"cpu.max": "100000 0"}, None),
        ("/a/b", {"a/cpu.max": "300000 100000", "a/b/cpu.max": "max 100000"}, 3),
        ("/a/b", {"a/cpu.max": "300000 100000", "a/b/cpu.max": "150000 100000"}, 1.5),
        ("/a/b", {"a/cpu.max": "100000 100000", "a/b/cpu.max": "800000 100000"}, 1),
        ("/a/b", {"a/b/cpu.max": "max 100000", "cpu.max": "400000 100000"}, 4),
        ("/a", {"other/cpu.max": "100000 100000"}, None),
        ("/../elsewhere", {"cpu.max": "200000 100000"}, 2),  # a group outside of what the container may see
        ("/gone", {"cpu.max": "200000 100000"}, 2),
    ],
)
def test_the_second_version(machine, group, files, expected):
    root = machine([f"0::{group}"], [second()], {f"sys/fs/cgroup/{name}": text for name, text in files.items()})
    assert processor_quota(root) == expected


@pytest.mark.parametrize(
    ("group", "mounted", "folder", "quota", "expected"),
    [
        ("/", "/", "", "250000", 2.5),
        ("/", "/", "", "-1", None),
        ("/docker/12", "/docker/12", "", "200000", 2),  # mounted in the container, named as the host sees it
        ("/docker/12", "/", "docker/12/", "200000", 2),
        ("/docker/12/inner", "/docker/12", "", "200000", 2),
        ("/docker/12/inner", "/docker/12", "inner/", "200000", 2),
        ("/kubepods/pod1/c", "/docker/12", "", "200000", 2),
    ],
)
def test_the_first_version(machine, group, mounted, folder, quota, expected):
    place = f"sys/fs/cgroup/cpu,cpuacct/{folder}"
    files = {f"{place}cpu.cfs_quota_us": quota, f"{place}cpu.cfs_period_us": "100000"}
    root = machine(["4:memory:/m", f"3:cpu,cpuacct:{group}", "0::/"], [first(mounted)], files)
    assert processor_quota(root) == expected


def test_both_versions_at_once(machine):
    """A host may have the first version's processors beside the second version without any controller."""
    unified, cpu = "sys/fs/cgroup/unified/job/", "sys/fs/cgroup/cpu/job/"
    files = {f"{unified}cgroup.procs": "1", f"{cpu}cpu.cfs_quota_us": "300000", f"{cpu}cpu.cfs_period_us": "100000"}
    mounts = [first(point="/sys/fs/cgroup/cpu"), second(point="/sys/fs/cgroup/unified")]
    assert processor_quota(machine(["1:cpu:/job", "2:cpuset:/", "0::/job"], mounts, files)) == 3


def test_a_mount_point_with_a_blank(machine):
    root = machine(["0::/"], [second(point=r"/my\040groups")], {"my groups/cpu.max": "100000 100000"})
    assert processor_quota(root) == 1


def test_no_linux(tmp_path):
    assert processor_quota(tmp_path) is None


@pytest.mark.parametrize(
    ("quota", "usable", "limit"), [(None, 8, None), (2.0, 2, 2), (1.2, 2, 2), (0.3, 1, 1), (9, 8, None)]
)
def test_everyone_takes_the_number_from_one_place(monkeypatch, quota, usable, limit):
    import mindspore as ms

    set_in_mindspore = {}
    monkeypatch.setattr(processor, "_processors", lambda: 8)
    monkeypatch.setattr(processor, "processor_quota", lambda: quota)
    monkeypatch.setattr(ms, "set_context", lambda **values: set_in_mindspore.update(values))
    assert processor.usable_processors() == usable
    assert processor.processor_time_is_limited() == (limit is not None)
    variables = {"HOME": "/", "OPENBLAS_NUM_THREADS": "1"}
    environment.prepare(variables)
    assert variables.get("OPENCV_FOR_THREADS_NUM") == (str(limit) if limit else None)
    assert variables["OPENBLAS_NUM_THREADS"] == "1"  # the user's
    device.configure("cpu")
    assert set_in_mindspore.get("runtime_num_threads") == limit


def test_a_mount_whose_name_is_no_text_changes_nothing(machine):
    root = machine(["0::/"], [second()], {"sys/fs/cgroup/cpu.max": "300000 100000"})
    with (root / "proc" / "self" / "mountinfo").open("ab") as file:
        file.write(b"40 23 8:2 / /mnt/\xff\xfe rw,relatime - ext4 /dev/sdb rw\n")
    assert processor_quota(root) == 3
