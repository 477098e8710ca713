"""What agrees with a run's record, what differs from it, and what cannot be told."""

import json
import math
import zipfile
from dataclasses import replace

import pytest
from conftest import compose_tiny

import fcnlab
from fcnlab import verify as module
from fcnlab.core.errors import ConfigError, FcnlabError
from fcnlab.experiment import run_record
from fcnlab.experiment.run_record import RunRecord
from fcnlab.experiment.verification import Replayed, compare, replay, require_same_training
from fcnlab.recording.journal import Journal
from fcnlab.recording.tags import WORKERS_TAG

HERE = {"fcnlab": "0.2.0", "git.commit": "a" * 40, "git.dirty": "false", "mindspore": "2.8.0", "numpy": "1.26.4"}
HERE |= {"cpu": "EPYC", "kernels": "compiled", "platform": "Linux"}
LOSSES = {1: 0.7, 2: 0.65, 3: 0.61, 4: 0.6}
METRICS = {2: {"val/loss": 0.66, "val/mean_iou": 0.4}, 4: {"val/loss": 0.6, "val/mean_iou": 0.5}}
DIGESTS = {"training": "1" * 32, "validation": "2" * 32}
RECORD = RunRecord("outputs/run", "seed: 1\n", LOSSES, METRICS, DIGESTS, None, HERE)


def found(record=RECORD, steps=4, tolerance=0.05, **changes):
    """Return the findings by their names, where a training gave what was recorded but for some changes."""
    same = {"losses": LOSSES, "evaluations": METRICS, "digests": DIGESTS, "environment": HERE}
    replayed = Replayed(**{**same, **changes})
    return {finding.what: finding for finding in compare(record, replayed, steps, tolerance)}


def status(**changes):
    return {what: finding.status for what, finding in found(**changes).items()}


def test_the_same_again_agrees_in_all_parts():
    assert set(status().values()) == {"agrees"}
    findings = found()
    assert findings["losses"].text == "The losses of 4 steps agree bit for bit."
    assert findings["metrics"].text == "The metrics of 2 evaluations agree bit for bit."
    assert module.verdict(list(findings.values())) is None


def test_on_the_same_machine_the_last_bit_counts():
    findings = found(losses={**LOSSES, 3: math.nextafter(0.61, 1)})
    assert findings["losses"].status == "differs"
    assert "differ from step 3 on" in findings["losses"].text
    assert module.verdict(list(findings.values())) == "the run is not verified: losses differ from its record"


MANY = {step: 0.7 - 0.002 * step for step in range(1, 51)}


def elsewhere(drift, key="cpu", **more):
    """Return the findings of 50 steps on another machine, where step n's loss differs relatively by ``drift(n)``."""
    losses = {step: loss * (1 - drift(step)) for step, loss in MANY.items()}
    record = replace(RECORD, losses=MANY)
    return found(record, steps=50, environment={**HERE, key: "another"}, losses=losses, tolerance=0.03, **more)


def rounding(step):
    """The drift that was measured with operators for an older processor: its size, and one loss that is far off."""
    return 7e-5 if step <= 5 else 0.07 if step == 30 else 0.008


@pytest.mark.parametrize("key", ["cpu", "kernels", "mindspore", "numpy", "platform"])
def test_elsewhere_rounding_may_grow(key):
    findings = elsewhere(rounding, key)
    assert (findings["machine"].status, findings["losses"].status) == ("not checked", "agrees")
    assert f"{key} {HERE[key]}, here another" in findings["machine"].text
    assert findings["losses"].text.endswith(
        "differ relatively by 7e-05 at most in the first 5, and by 0.0084 on average, within 0.001 and 0.03."
    )


@pytest.mark.parametrize("seldom", [1, 3, 5])
def test_elsewhere_the_first_losses_must_nearly_be_the_same(seldom):
    """Another seed or stride differs in them, long before rounding does."""
    findings = elsewhere(lambda step: 0.004 if step == seldom else rounding(step))
    assert findings["losses"].status == "differs"
    assert "0.001 and 0.03 are allowed" in findings["losses"].text


def test_elsewhere_losses_must_be_near_on_average():
    assert elsewhere(lambda step: 0.0 if step <= 5 else 0.03)["losses"].status == "agrees"
    assert elsewhere(lambda step: 0.0 if step <= 5 else 0.04)["losses"].status == "differs"


def test_elsewhere_a_metric_may_differ_by_five_times_the_tolerance():
    for moved, status_ in ((0.64, "agrees"), (0.66, "differs")):
        metrics = {**METRICS, 4: {"val/loss": 0.6, "val/mean_iou": moved}}
        assert elsewhere(rounding, evaluations=metrics)["metrics"].status == status_


def test_other_images_make_losses_incomparable():
    findings = found(digests={**DIGESTS, "training": "3" * 32}, losses={})
    assert findings["training images"].status == "differs"
    assert (findings["losses"].status, findings["metrics"].status) == ("not checked", "not checked")
    weights = found(record=replace(RECORD, initial_weights="4" * 64), initial_weights="5" * 64)
    assert weights["initial weights"].status == "differs"
    none = found(record=replace(RECORD, initial_weights="4" * 64))
    assert "here it starts from none" in none["initial weights"].text
    assert none["losses"].status == "not checked"
    assert found(record=replace(RECORD, digests={}))["training images"].status == "not checked"


def test_other_code_is_said_and_no_difference():
    assert status(environment={**HERE, "git.commit": "b" * 40})["code"] == "not checked"
    assert status(environment={**HERE, "git.dirty": "true"})["code"] == "not checked"
    assert status(environment={**HERE, "git.dirty": "unknown"})["code"] == "not checked"


def test_what_is_not_finite_agrees_only_with_the_same():
    nan, elsewhere = {**LOSSES, 4: math.nan}, {**HERE, "cpu": "another"}
    assert status(record=replace(RECORD, losses=nan), losses=nan)["losses"] == "agrees"
    for one, other in ((nan, LOSSES), (LOSSES, nan), ({**LOSSES, 4: math.inf}, LOSSES)):
        assert status(record=replace(RECORD, losses=one), losses=other, environment=elsewhere)["losses"] == "differs"
    fewer = {2: METRICS[2], 4: {"val/loss": 0.6}}
    assert status(evaluations=fewer, environment=elsewhere)["metrics"] == "differs"


def test_nothing_to_compare_is_no_proof():
    findings = found(record=replace(RECORD, losses={}))
    assert findings["losses"].status == "not checked"
    assert "could not be checked" in module.verdict(list(findings.values()))
    assert found(steps=1, evaluations={})["metrics"].status == "not checked"


def written(folder):
    """Write the output folder of a run that never was."""
    (folder / "run").mkdir()
    (folder / "run" / "config.yaml").write_text("# fcnlab 0.2.0\nseed: 1\n")
    (folder / "run" / "git.diff").write_text("+ a line\n")
    journal = Journal(folder / "run")
    journal.append("run", journal="x", experiment="e", name="n", tags=HERE, params={})
    datasets = [{"context": context, "digest": digest} for context, digest in DIGESTS.items()]
    journal.append("inputs", datasets=datasets)
    for step, loss in [(1, 0.9), *LOSSES.items()]:  # the first step was made twice
        journal.append("metrics", step=step, values={"train/loss": loss, "train/learning_rate": 0.1})
    for step, metrics in METRICS.items():
        journal.append("metrics", step=step, values={**metrics, "val/iou/a:plus sign:b": math.nan})
    journal.close()
    return folder / "run"


def test_a_bundle_holds_what_the_run_recorded(tmp_path):
    run = written(tmp_path)
    record = run_record.read(str(run))
    assert (record.losses, record.digests, record.environment, record.diff) == (LOSSES, DIGESTS, HERE, "+ a line\n")
    assert math.isnan(record.evaluations[2]["val/iou/a+b"])
    module.main(["bundle", f"run={run}", f"output={tmp_path / 'run.zip'}"])
    again = run_record.read(str(tmp_path / "run.zip"))
    assert repr(replace(again, source=record.source)) == repr(record)  # NaN equals nothing
    with zipfile.ZipFile(tmp_path / "run.zip") as archive:
        assert {*archive.namelist()} == {"config.yaml", "expected.json", "versions.txt", "README.txt", "git.diff"}
        assert "numpy==" in archive.read("versions.txt").decode()


def test_metrics_of_an_early_version_are_those_of_the_classes(tmp_path):
    """They were recorded with an underscore in place of many characters."""
    run = written(tmp_path)
    (run / "config.yaml").write_text("seed: 1\ndataset:\n  class_names: [cell, c+d]\n")
    journal = Journal(run, exist_ok=True)
    journal.append("metrics", step=9, values={"val/iou/c_d": 0.25, "val/iou/cell": 0.5})
    journal.close()
    assert run_record.read(str(run)).evaluations[9] == {"val/iou/c+d": 0.25, "val/iou/cell": 0.5}


def test_a_damaged_bundle_is_one_line(tmp_path):
    path = tmp_path / "run.zip"
    module.bundle(str(written(tmp_path)), str(path))
    whole = path.read_bytes()
    for data in (b"", whole[:300], whole[:60] + b"\0\0\0\0" + whole[64:]):
        path.write_bytes(data)
        with pytest.raises(ConfigError, match="is no bundle of a run") as caught:
            run_record.read(str(path))
        assert "\n" not in str(caught.value)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.yaml", "seed: 1\n")
        archive.writestr("expected.json", json.dumps({"losses": {"one": 1}}))
    with pytest.raises(ConfigError, match="is no bundle of a run"):
        run_record.read(str(path))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.yaml", "seed: 1\n")
        archive.writestr("expected.json", "[" * 100_000)
    with pytest.raises(ConfigError, match="is no bundle of a run"):
        run_record.read(str(path))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([".", "steps=3"], r"\.: is neither a bundle \(\.zip\) nor key=value"),
        (["steps=3"], "run: give the run"),
        (["run=x", "step=3"], "step: no such key; did you mean steps"),
        (["run=x", "steps=0"], "steps=0: must be a whole number"),
        (["run=x", "tolerance=2"], "tolerance=2: must be a number between 0 and 1"),
        (["run=x", "output=a.zip"], "is for a bundle"),
        (["bundle", "run=x"], "output: give the bundle to write"),
        (["bundle", "run=x", "output=a.tar"], r"must end in \.zip"),
        (["bundle", "run=x", "output=a.zip", "steps=3"], "steps: verify bundle takes run, output"),
        (["run=nowhere"], "run=nowhere: is neither a run id"),
        (["none.zip"], r"none\.zip: is no bundle of a run"),
    ],
)
def test_a_wrong_command_line_is_one_line(tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FcnlabError, match=said) as caught:
        module.main(words)
    assert "\n" not in str(caught.value)


def test_only_keys_of_the_machine_may_be_set():
    config = fcnlab.compose(["seed=1"])
    require_same_training(config, fcnlab.compose(["seed=1", "dataset.root=elsewhere", "dataset.num_workers=2"]))
    # Whether a list names the same images, their digest says.
    lists = fcnlab.compose(["dataset=folder", "dataset.root=here", "dataset.val_list=/there/val.txt"])
    require_same_training(fcnlab.compose(["dataset=folder", "dataset.root=here"]), lists)
    with pytest.raises(ConfigError, match=r"^optimizer\.lr=0\.5: the run has optimizer\.lr="):
        require_same_training(config, fcnlab.compose(["seed=1", "optimizer.lr=0.5"]))


@pytest.mark.slow
def test_a_real_run_is_verified_by_a_stranger(tmp_path, uri, capsys):
    """A training with dropout and a schedule, its first steps again from its id, and all of them from its bundle."""
    config = compose_tiny("schedule=poly", f"tracking.uri={uri}", "loss.class_weights=median_frequency")
    run_id = fcnlab.train(config, tmp_path / "out").run_id
    findings = {finding.what: finding for finding in module.verify(run_id, steps=3, uri=uri)}
    assert findings["losses"].text == "The losses of 3 steps agree bit for bit."
    assert findings["metrics"].text == "The metrics of 1 evaluation agree bit for bit."
    module.main(["bundle", f"run={run_id}", f"output={tmp_path / 'run.zip'}", f"tracking.uri={uri}"])
    module.main([str(tmp_path / "run.zip"), "steps=all", "dataset.num_workers=2"])
    text = capsys.readouterr().out
    assert "The losses of 4 steps agree bit for bit." in text
    assert "The run is verified" in text


def by_workers(**changes):
    """Return the findings of 50 steps that two workers have trained, and one process now."""
    record = replace(RECORD, losses=MANY, environment={**HERE, WORKERS_TAG: "2"})
    return found(record, **{"steps": 50, "losses": {step: loss * 1.0001 for step, loss in MANY.items()}, **changes})


def test_what_workers_trained_is_compared_within_the_tolerance():
    findings = by_workers()
    assert (findings["machine"].status, findings["losses"].status) == ("not checked", "agrees")
    assert findings["machine"].text == (
        "2 workers trained the run, and one process does here, so that bits cannot be checked, but a tolerance can."
    )
    elsewhere = by_workers(environment={**HERE, "cpu": "another"})["machine"].text
    assert "here, and the machine is another one (cpu EPYC, here another), so that" in elsewhere
    assert by_workers(losses={step: loss * 1.1 for step, loss in MANY.items()})["losses"].status == "differs"


def test_what_workers_normalised_each_by_itself_is_not_compared():
    findings = by_workers(has_local_statistics=True)
    assert (findings["losses"].status, findings["metrics"].status) == ("not checked", "not checked")
    assert "each worker normalised its share of a batch by itself" in findings["losses"].text
    assert status(has_local_statistics=True)["losses"] == "agrees"  # of one process, then and now


@pytest.mark.parametrize(
    ("words", "made"),
    [
        (["arch.norm=sync_batch"], 1),
        (["arch.norm=batch"], 0),
        (["arch.norm=batch", "optimizer.freeze=['*.gamma','*.beta']"], 1),
    ],
)
def test_one_process_trains_again_what_workers_trained(tiny, words, made):
    record = replace(RECORD, environment={WORKERS_TAG: "2"}, digests={})
    config = tiny("trainer.parallel=data", "trainer.workers=2", "tracking=none", *words)
    replayed, steps = replay(config, record, 1, lambda step: None)
    assert (steps, [*replayed.losses], replayed.has_local_statistics) == (made, [1] * made, not made)
