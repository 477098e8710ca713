"""The results of trials in a sweep's folder."""

from fcnlab.sweeps.result import TrialResult, read, read_all


def test_results_are_read_by_number_and_damaged_ones_left_out(tmp_path):
    for number in (10, 2):
        TrialResult(number, ["seed=1"], "there", "failed", "why", None, None, 1.5).write(tmp_path)
    (tmp_path / "trials" / "3.json").write_text("{")
    (tmp_path / "trials" / "4.json").write_text('{"strange": 1}')
    assert [result.number for result in read_all(tmp_path)] == [2, 10]
    assert read_all(tmp_path)[0].reason == "why"
    assert read(tmp_path, 10) == read_all(tmp_path)[1]
    assert read(tmp_path, 3) is read(tmp_path, 5) is None
