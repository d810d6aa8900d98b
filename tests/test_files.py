"""What is replaced is there whole, the old or the new, and nothing else is left beside it."""

import os
import pathlib
import stat

import pytest

from kerasrnn.files import replacing_directory, replacing_file


class Broken(Exception):
    pass


@pytest.fixture(params=[False, True], ids=["folder", "beside"])
def written(request, tmp_path):
    """A file that was replaced once, and how to write it."""
    path = tmp_path / "page.html"
    options = {"unfinished": tmp_path / "page.html.mine"} if request.param else {}

    def write(content, error=None):
        with replacing_file(path, **options) as file:
            file.write(content)
            if error:
                raise error

    path.write_bytes(b"older")
    write(b"old")
    return path, write


def test_a_file_is_replaced(written):
    path, write = written
    assert path.read_bytes() == b"old"
    write(b"new")
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [Broken(), KeyboardInterrupt()])
def test_a_writer_that_raises_leaves_the_old_file(written, error):
    path, write = written
    with pytest.raises(type(error)):
        write(b"half of the n", error)
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


def test_the_old_file_stands_until_the_new_one_is_whole(written):
    path, _ = written
    with replacing_file(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


def test_a_file_that_cannot_take_its_place(written, monkeypatch):
    def stop(*paths):
        raise OSError("no space left")

    path, write = written
    monkeypatch.setattr(os, "replace", stop)
    with pytest.raises(OSError, match="no space left"):
        write(b"new")
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


def test_a_file_is_on_the_disk_before_it_takes_its_place(written, monkeypatch):
    """A machine that loses its power else has the new name and none of the content."""
    _, write = written
    done, sync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda number: done.append("sync") or sync(number))
    monkeypatch.setattr(os, "replace", lambda *paths: done.append("replace") or replace(*paths))
    write(b"new")
    assert done == ["sync", "replace"]


def test_a_file_has_the_usual_rights(written):
    path, write = written
    usual = path.parent / "usual"
    usual.write_bytes(b"")
    write(b"new")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(usual.stat().st_mode)


@pytest.fixture
def directory(tmp_path):
    path = tmp_path / "artifact"
    path.mkdir()
    (path / "old.txt").write_text("old")
    return path


def assert_old(path):
    assert [(part.name, part.read_text()) for part in path.iterdir()] == [("old.txt", "old")]
    assert list(path.parent.iterdir()) == [path]


def test_a_directory_is_replaced(directory):
    with replacing_directory(directory) as unfinished:
        unfinished.mkdir()
        (unfinished / "new.txt").write_text("new")
        assert (directory / "old.txt").read_text() == "old"
    assert [part.name for part in directory.iterdir()] == ["new.txt"]
    assert list(directory.parent.iterdir()) == [directory]


def test_a_directory_under_others_that_are_missing(tmp_path):
    path = tmp_path / "a" / "b"
    with replacing_directory(path) as unfinished:
        unfinished.mkdir()
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [Broken, KeyboardInterrupt])
def test_a_writer_that_raises_leaves_the_old_directory(directory, error):
    def write():
        with replacing_directory(directory) as unfinished:
            unfinished.mkdir()
            (unfinished / "new.txt").write_text("half of the n")
            raise error

    with pytest.raises(error):
        write()
    assert_old(directory)


def test_a_directory_that_cannot_take_its_place(directory, monkeypatch):
    rename = os.rename

    def interrupted(source, target):
        if pathlib.Path(source).name == "new":
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(os, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), replacing_directory(directory) as unfinished:
        unfinished.mkdir()
    assert_old(directory)
