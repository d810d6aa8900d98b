"""What is replaced is there whole, the old or the new, and nothing else is left beside it; and what
has an address goes there."""

import os
import pathlib
import stat

import pytest
import tensorflow as tf

from kerasrnn.files import (
    Address,
    directories,
    located,
    path,
    replacing_directory,
    replacing_file,
)

gfile = tf.io.gfile


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
def test_a_writer_that_raises_leaves_no_missing_directory(tmp_path, error):
    def write(path):
        with replacing_directory(path) as unfinished:
            unfinished.mkdir()
            (unfinished / "new.txt").write_text("half of the n")
            raise error

    with pytest.raises(error):
        write(tmp_path / "a" / "b" / "c")
    assert list(tmp_path.iterdir()) == []
    # What was there stays, empty or not.
    (tmp_path / "a").mkdir()
    with pytest.raises(error):
        write(tmp_path / "a" / "b" / "c")
    assert list(tmp_path.rglob("*")) == [tmp_path / "a"]


def test_what_others_put_into_a_missing_directory_stays(tmp_path):
    def write():
        with directories(tmp_path / "a" / "b" / "c"):
            (tmp_path / "a" / "b" / "theirs.txt").write_text("theirs")
            raise Broken

    with pytest.raises(Broken):
        write()
    assert [p.name for p in tmp_path.rglob("*")] == ["a", "b", "theirs.txt"]


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


@pytest.fixture
def address(tmp_path):
    """That of a folder which nobody else uses."""
    return Address(f"ram:/{tmp_path}")


def test_an_address_has_parts(address):
    assert located("csv", "gs://bucket/a/b.csv") == Address("gs://bucket/a/b.csv")
    assert Address("gs://bucket/a/") / "b.csv" == Address("gs://bucket/a/b.csv")
    place = Address("gs://bucket/a/b.csv")
    assert (place.name, place.parent, os.fspath(place)) == (
        "b.csv",
        Address("gs://bucket/a"),
        "gs://bucket/a/b.csv",
    )
    assert place.parent.parent.parent == Address("gs://")
    assert place.resolve() == place


def test_what_stands_at_an_address(address):
    folder = address / "a" / "b"
    assert not folder.exists()
    folder.mkdir()
    folder.mkdir(exist_ok=True)
    with pytest.raises(FileExistsError, match="/a/b exists"):
        folder.mkdir()
    file = folder / "c.txt"
    file.unlink(missing_ok=True)
    with pytest.raises(tf.errors.NotFoundError):
        file.unlink()
    for content in (b"older text", b"text"):
        with file.open("wb") as opened:
            opened.write(content)
    assert read(file) == b"text"
    assert (folder.is_dir(), file.is_dir(), file.exists()) == (True, False, True)
    assert list(folder.iterdir()) == [file]
    with pytest.raises(OSError, match="not empty"):
        folder.rmdir()
    file.unlink()
    folder.rmdir()
    assert not folder.exists()


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ("norms.csv", pathlib.Path("norms.csv")),
        ("C:/norms.csv", pathlib.Path("C:/norms.csv")),
        ("./gs:/norms.csv", pathlib.Path("gs:/norms.csv")),
        ("run:1/norms.csv", pathlib.Path("run:1/norms.csv")),
        ("ram://norms.csv", Address("ram://norms.csv")),
        (Address("ram://norms.csv"), Address("ram://norms.csv")),
    ],
)
def test_what_is_an_address(value, place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert located("csv", value) == place
    assert path("csv", value) == value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (pathlib.Path("gs://bucket/norms.csv"), r"`csv` must have two slashes.*'gs://\.\.\.'"),
        ("s3a:/bucket/norms.csv", r"`csv` must have two slashes.*csv='s3a:/bucket"),
        ("abc://bucket/norms.csv", r"`csv` must lie on .*ram://.*tensorflow_io.*csv='abc://bucket"),
    ],
)
def test_addresses_that_are_none(value, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for check in (path, located):
        with pytest.raises(ValueError, match=message):
            check("csv", value)
    with pytest.raises(TypeError, match=r"`csv` must be a path\. Received: csv=3"):
        located("csv", 3)
    assert list(tmp_path.iterdir()) == []


def read(address):
    with address.open("rb") as file:
        return file.read()


@pytest.mark.parametrize("old", [False, True])
def test_a_file_at_an_address_is_replaced(address, old):
    place = address / "new" / "page.html"
    if old:
        place.parent.mkdir()
        with place.open("wb") as file:
            file.write(b"old")

    def write():
        with replacing_file(place) as file:
            file.write(b"half of the n")
            raise Broken

    with pytest.raises(Broken):
        write()
    assert place.exists() == old
    for content in (b"new", b"newer"):
        with replacing_file(place) as file:
            file.write(content)
            file.flush()
            assert not place.exists() or read(place) != content
        assert read(place) == content
    assert list(place.parent.iterdir()) == [place]


def test_a_file_at_an_address_that_cannot_take_its_place(address, monkeypatch):
    place = address / "page.html"
    with replacing_file(place) as file:
        file.write(b"old")

    def stop(*paths, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(gfile, "rename", stop)
    with pytest.raises(KeyboardInterrupt), replacing_file(place) as file:
        file.write(b"new")
    assert read(place) == b"old"
    assert list(address.iterdir()) == [place]


@pytest.mark.parametrize("old", ["nothing", "a file", "a directory", "one that nobody made"])
def test_a_directory_at_an_address_is_replaced(address, old):
    place = address / "artifact"
    if old == "a directory":
        (place / "sub").mkdir()
    if old != "nothing":
        with (place if old == "a file" else place / "old.txt").open("wb") as file:
            file.write(b"old")
    before = gfile.glob(f"{place}/*")

    def write():
        with replacing_directory(place) as unfinished:
            unfinished.mkdir()
            (unfinished / "new.txt").write_text("half of the n")
            raise Broken

    with pytest.raises(Broken):
        write()
    assert gfile.glob(f"{place}/*") == before
    with replacing_directory(place) as unfinished:
        (unfinished / "sub" / "empty").mkdir(parents=True)
        (unfinished / "new.txt").write_text("new")
        (unfinished / "sub" / "deep.txt").write_text("deep")
    assert {part.name for part in place.iterdir()} == {"new.txt", "sub"}
    assert read(place / "new.txt") == b"new"
    assert read(place / "sub" / "deep.txt") == b"deep"
    assert (place / "sub" / "empty").is_dir()


def test_the_files_at_its_top_are_copied_last(address, monkeypatch):
    """A SavedModel is one once its saved_model.pb is there."""
    copied, copy = [], gfile.copy
    monkeypatch.setattr(gfile, "copy", lambda a, b, **o: copied.append(b) or copy(a, b, **o))
    with replacing_directory(address / "artifact") as unfinished:
        (unfinished / "variables").mkdir(parents=True)
        for name in ("saved_model.pb", "variables/index", "variables/data"):
            (unfinished / name).write_text("text")
    assert copied[-1].endswith("artifact/saved_model.pb")
