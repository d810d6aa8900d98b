"""Files of a search: whole, or the one before."""

import pickle

import pytest

from kerasrnn.tuning.folder import (
    Replaced,
    StateFile,
    WholeWeights,
    read_json,
    unfinished,
    write_json,
)


def test_json_is_written_twice(tmp_path):
    path = tmp_path / "new" / "state.json"
    assert read_json(path) is None
    write_json(path, {"a": 1.5})
    write_json(path, {"a": float("inf")})
    assert read_json(path) == {"a": float("inf")}
    assert sorted(place.name for place in path.parent.iterdir()) == [
        "state.json",
        "state.json.backup",
    ]
    for broken in (b"", b'{"a": 1', b"\xff"):
        path.write_bytes(broken)
        assert read_json(path) == {"a": float("inf")}
    path.unlink()
    assert read_json(path) == {"a": float("inf")}


def test_json_that_is_damaged_is_named(tmp_path):
    path = tmp_path / "state.json"
    path.write_text("{")
    with pytest.raises(ValueError, match=r"state\.json cannot be read.*overwrite=True"):
        read_json(path)


def test_a_state_leaves_the_one_before_it(tmp_path):
    file = StateFile(tmp_path / "trial" / "state.pickle")
    assert file.read() is None
    for epoch in range(3):
        file.write({"epoch": epoch})
    assert file.read() == {"epoch": 2}
    content = file.path.read_bytes()
    for broken in (b"", content[:-3], content[3:]):
        file.path.write_bytes(broken)
        assert file.read() == {"epoch": 1}
    # The process may die between two renames.
    file.path.unlink()
    assert file.read() == {"epoch": 1}
    file.remove()
    assert [*file.path.parent.iterdir()] == []


def test_a_state_that_cannot_be_written_leaves_what_is_there(tmp_path):
    file = StateFile(tmp_path / "state.pickle")
    file.write(1)
    with pytest.raises((pickle.PicklingError, AttributeError)):
        file.write(lambda: None)
    assert file.read() == 1


@pytest.mark.parametrize("killed", [False, True])
def test_what_is_replaced_comes_back(killed, tmp_path):
    folder = tmp_path / "search"
    folder.mkdir()
    (folder / "old").write_text("old")
    Replaced(folder).put_aside()
    (folder / "new").write_text("new")
    if killed:
        Replaced(folder).put_aside()
        assert [*folder.iterdir()] == []
    assert Replaced(folder).put_back()
    assert [path.name for path in tmp_path.rglob("*")] == ["search", "old"]
    assert not Replaced(folder).put_back()


def test_what_is_replaced_goes(tmp_path):
    folder = tmp_path / "search"
    Replaced(folder).remove()
    Replaced(folder).put_aside()
    (folder / "old").write_text("old")
    Replaced(folder).put_aside()
    (folder / "new").write_text("new")
    Replaced(folder).remove()
    assert [path.name for path in tmp_path.rglob("*")] == ["search", "new"]


class WritesMeanwhile:
    """Its pickling has another worker write the same file."""

    def __init__(self, file, monkeypatch):
        self._file, self._monkeypatch = file, monkeypatch

    def __reduce__(self):
        with self._monkeypatch.context() as patch:
            patch.setenv("KERASTUNER_TUNER_ID", "the other/worker")
            self._file.write("the other's" * 9)
        return str, ("mine",)


@pytest.mark.parametrize("before", [False, True])
def test_two_workers_that_write_the_same_file(before, tmp_path, monkeypatch):
    """One was taken for lost, and writes still."""
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "worker")
    file = StateFile(tmp_path / "state.pickle")
    if before:
        file.write("the first")
    file.write(WritesMeanwhile(file, monkeypatch))
    assert file.read() == "mine"
    file.path.unlink()
    assert file.read() == "the other's" * 9
    file.remove()
    assert [*tmp_path.iterdir()] == []


def test_weights_take_their_place_when_they_are_whole(tmp_path):
    path = tmp_path / "checkpoint.weights.h5"
    weights = WholeWeights(path)
    path.write_text("old")
    unfinished(path).write_text("of a process that di")
    weights.on_train_begin()
    weights.on_epoch_end(0)
    assert path.read_text() == "old"
    unfinished(path).write_text("new")
    weights.on_epoch_end(1)
    assert path.read_text() == "new"
    assert [*tmp_path.iterdir()] == [path]
