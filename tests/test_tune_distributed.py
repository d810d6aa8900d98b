"""The script of the gallery that searches with several processes; as processes it runs in
`test_tuning_workers.py`."""

import json

import pytest
import tune_distributed


def test_no_workers_are_refused(capsys, monkeypatch):
    monkeypatch.setattr(tune_distributed, "start", lambda arguments: pytest.fail("started"))
    for workers in ("-1", "0"):
        with pytest.raises(SystemExit):
            tune_distributed.main(["--workers", workers])
        assert "--workers: must be a whole number, at least 1" in capsys.readouterr().err


def test_each_process_gets_the_flags_and_its_part(monkeypatch, tmp_path):
    started = []

    class Process:
        def __init__(self, command, env):
            started.append((command[2:], env["KERASTUNER_TUNER_ID"]))

        def wait(self):
            return len(started) > 3

    monkeypatch.setattr(tune_distributed.subprocess, "Popen", Process)
    out = str(tmp_path / "x.png")
    flags = ["--folder", "here", "--seed", "3", "--trials", "5", "--epochs", "2", "--out", out]
    tune_distributed.main([*flags, "--workers", "2"])
    assert [name for _, name in started] == ["chief", "worker-0", "worker-1"]
    assert all(command == flags for command, _ in started)
    with pytest.raises(SystemExit, match="A process of the search failed"):
        tune_distributed.main([*flags, "--workers", "2"])


@pytest.mark.slow
@pytest.mark.usefixtures("quiet_tuner")
def test_a_search_keeps_who_ran_a_trial(tmp_path):
    """And another seed is another search in the same folder."""
    small = {"trials": 2, "epochs": 1, "samples": 8, "length": 3}
    search = tune_distributed.run(str(tmp_path), **small)
    found = tune_distributed.runs(search)
    assert [one["trial"] for one in found] == [1, 2]
    assert {one["worker"] for one in found} == {search.tuner_id}
    assert found[0]["begun"] == 0
    assert found[0]["ended"] <= found[1]["begun"] < found[1]["ended"]
    scores = {row["trial"]: row["score"] for row in search.trials_table()}
    assert {one["trial"]: one["score"] for one in found} == scores

    # A trial that another worker began earlier and ended later.
    note = json.loads(search.note_of(1).read_text())
    note |= {"worker": "other", "begun": note["begun"] - 1, "ended": note["ended"] + 100}
    search.note_of(1).write_text(json.dumps(note))
    found = tune_distributed.runs(search)
    assert [(one["trial"], one["worker"]) for one in found] == [(2, search.tuner_id), (1, "other")]
    assert found[1]["begun"] == 0

    other = tune_distributed.run(str(tmp_path), seed=1, **small | {"trials": 1})
    assert len(other.trials_table()) == 1


def test_the_picture():
    """The best so far never rises; each trial is a bar from its begin to its end."""
    found = [
        {"trial": 2, "score": 0.2, "worker": "worker-1", "begun": 1.0, "ended": 4.0},
        {"trial": 1, "score": 0.3, "worker": "worker-0", "begun": 0.0, "ended": 6.0},
        {"trial": 3, "score": 0.1, "worker": "worker-1", "begun": 4.0, "ended": 9.0},
    ]
    scores, rows = tune_distributed.draw(found).axes
    best, *of_workers = scores.lines
    assert best.get_ydata().tolist() == [0.2, 0.2, 0.1]
    assert [line.get_label() for line in of_workers] == ["worker-0", "worker-1"]
    assert list(of_workers[1].get_xdata()) == [4.0, 9.0]
    bars = [(bar.get_x(), bar.get_width()) for bar in rows.patches]
    assert bars == [(0.0, 6.0), (1.0, 3.0), (4.0, 5.0)]
    assert [text.get_text() for text in rows.texts] == ["1", "2", "3"]
