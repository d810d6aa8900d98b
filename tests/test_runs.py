"""What benchmarks/runs.py keeps of trainings that take long."""

import functools
import json
import pathlib
import sys

import pytest

FOLDER = pathlib.Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def runs(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    import runs

    return runs


def squared(run):
    return {"found": run["value"] ** 2}


WANTED = [{"value": value, "why": "a test"} for value in (3, 1, 2)]


def test_what_has_ended_is_not_run_again(runs, tmp_path, capsys):
    path, trained = tmp_path / "runs" / "all.jsonl", []

    def train(run):
        trained.append(run["value"])
        return squared(run)

    assert runs.run_all(path, WANTED[:2], train) == [{"found": 9}, {"found": 1}]
    assert runs.run_all(path, WANTED, train) == [{"found": 9}, {"found": 1}, {"found": 4}]
    assert trained == [3, 1, 2]
    assert "1/1, 0 min left" in capsys.readouterr().err
    # All that determines a run makes it another.
    runs.run_all(path, [run | {"why": "another"} for run in WANTED], train)
    assert trained == [3, 1, 2, 3, 1, 2]


def test_a_run_that_was_interrupted_leaves_the_others(runs, tmp_path):
    path = tmp_path / "all.jsonl"

    def train(run):
        if run["value"] == 2:
            raise KeyboardInterrupt
        return squared(run)

    with pytest.raises(KeyboardInterrupt):
        runs.run_all(path, WANTED, train)
    # And a process that is killed may leave a part of a line.
    whole = path.read_text()
    path.write_text(whole + '{"run": {"value"')
    assert len(runs.finished(path)) == 2
    assert runs.run_all(path, WANTED, squared) == [{"found": 9}, {"found": 1}, {"found": 4}]
    lines = path.read_text().splitlines()
    assert path.read_text().startswith(whole)
    assert [json.loads(line)["run"]["value"] for line in lines] == [3, 1, 2]


def test_in_several_processes(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "one_thread", functools.partial(bool))
    monkeypatch.setitem(sys.modules, "test_runs", sys.modules[__name__])
    many = [{"value": value} for value in range(9)]
    for each in (2, 12):
        path = tmp_path / f"{each}.jsonl"
        found = runs.run_all(path, many, squared, processes=2, runs_per_process=each)
        assert found == [{"found": value**2} for value in range(9)]


def noted(run):
    """Fails at 0, and leaves a file for every other run that began."""
    if run["value"] == 0:
        raise ValueError("no more")
    pathlib.Path(run["folder"], str(run["value"])).touch()
    return run


def test_nothing_more_begins_after_an_interrupt(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "one_thread", functools.partial(bool))
    folder = tmp_path / "began"
    folder.mkdir()
    many = [{"value": value, "folder": str(folder)} for value in range(500)]
    with pytest.raises(ValueError, match="no more"):
        runs.run_all(tmp_path / "all.jsonl", many, noted, processes=1, runs_per_process=500)
    assert len(list(folder.iterdir())) < 250


def test_an_error_in_one_process_ends_all_and_keeps_what_was_found(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "one_thread", functools.partial(bool))
    path = tmp_path / "all.jsonl"
    wrong = [{"value": "three"}]
    with pytest.raises(TypeError):
        runs.run_all(path, WANTED[:1] + wrong, squared, processes=1)
    assert len(runs.finished(path)) == 1
