import os
import pathlib
import pickle
import subprocess
import sys

import pytest
import tensorflow as tf

from kerasrnn.export import Artifact, RemoteArtifact, Report
from kerasrnn.export.artifact import directory_for, file_for, file_in_place, needed, reported
from kerasrnn.files import Address

REPORT = Report("onnx", {"GRU": 2, "Scan": 1}, 2048, 1e-7, 1e-5, (), {"x": (2, 3)})


def test_an_artifact_is_the_path_it_was():
    path = reported(pathlib.Path("/a/b.onnx"), REPORT)
    assert isinstance(path, Artifact)
    assert path == pathlib.Path("/a/b.onnx")
    assert {path: 1}[pathlib.Path("/a/b.onnx")] == 1
    assert path.report is REPORT
    assert str(path) == "/a/b.onnx"
    assert path.parent == pathlib.Path("/a")
    assert (path / "c").report is None
    assert pickle.loads(pickle.dumps(path)) == path


def test_an_address_is_the_string_it_was():
    path = reported(Address("gs://bucket/net"), REPORT)
    assert isinstance(path, RemoteArtifact)
    assert path == "gs://bucket/net"
    assert path.report is REPORT


def test_a_report_in_words():
    assert repr(REPORT) == (
        "Report of the onnx file: 2,048 bytes, nothing open, largest difference 1.0e-07 (allowed "
        "1e-05)\n  input x: (2, 3)\n  operations: GRU x 2, Scan"
    )


def test_a_file_takes_its_place_at_the_end(tmp_path):
    place = tmp_path / "folder" / "net.onnx"

    def interrupted():
        with file_in_place(place) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []
    with file_in_place(place) as file:
        file.write(b"whole")
    assert place.read_bytes() == b"whole"
    assert list(place.parent.iterdir()) == [place]


def test_a_file_that_cannot_be_written_leaves_no_directory(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    def write():
        with file_in_place(tmp_path / "new" / "deep" / "net.onnx") as file:
            file.write(b"whole")

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write()
    assert list(tmp_path.iterdir()) == []


def test_an_address_of_a_file(tmp_path):
    place = file_for(f"ram:/{tmp_path}/net.onnx", ".onnx", overwrite=False)
    with file_in_place(place) as file:
        file.write(b"whole")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        file_for(place.url, ".onnx", overwrite=False)


PLACES = (lambda path, overwrite: file_for(path, ".onnx", overwrite), directory_for)


@pytest.mark.parametrize("place", PLACES)
def test_what_is_no_path(place):
    for path in (3, None):
        with pytest.raises(TypeError, match="`path` must be a path"):
            place(path, False)
    with pytest.raises(ValueError, match=r"`path` must name a place. Received: path=''"):
        place("", True)


@pytest.mark.parametrize("place", PLACES)
def test_what_lies_below_a_file(place, tmp_path):
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file" / "net.onnx", tmp_path / "file" / "a" / "net.onnx"):
        with pytest.raises(
            NotADirectoryError, match=r"must lie in directories.*below the file .*e"
        ):
            place(path, True)


@pytest.mark.parametrize("place", PLACES)
def test_whether_to_overwrite_is_a_boolean(place, tmp_path):
    path, rule = tmp_path / "net.onnx", r"`overwrite` must be True or False.*overwrite='no'"
    with pytest.raises(ValueError, match=rule):
        place(path, "no")
    path.write_text("mine")
    with pytest.raises(ValueError, match=rule):
        place(path, "no")


def test_a_runtime_that_is_not_there_is_one_line_for_pip():
    with pytest.raises(ImportError, match=r"package no_such: pip install 'kerasrnn\[x\]'"):
        needed("no_such.part", "x")


def test_the_line_for_pip_comes_before_any_work(tmp_path):
    code = """
import sys
for name in ("ai_edge_litert", "onnx", "onnxruntime"):
    sys.modules[name] = None
import keras, kerasrnn
from kerasrnn.export import export_litert, export_onnx, export_streaming
model = keras.Sequential([keras.Input((None, 3)), kerasrnn.layers.GRU(2)])
model.__class__.__call__ = None
for run in (
    lambda: export_litert(model, "net.tflite"),
    lambda: export_onnx(model, "net.onnx"),
    lambda: export_streaming(model, "net.tflite", format="litert"),
    lambda: export_streaming(model, "net", format="onnx"),
):
    try:
        run()
    except ImportError as error:
        print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    extras = ["litert", "onnx", "litert", "onnx"]
    assert [line.partition("pip install ")[2] for line in lines] == [
        f"'kerasrnn[{extra}]'" for extra in extras
    ]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("shapes", "dynamic"),
    [
        ([(None, 3), (2, None, 3)], ("batch", "time")),
        ([(2, 3), (2, None, 3)], ("time",)),
        ([(None, 3), (None, 4, 3)], ("batch",)),
        ([(2, 4, 3)], ()),
    ],
)
def test_what_specifications_leave_open(shapes, dynamic):
    specs = {f"x{k}": tf.TensorSpec(shape, "float32") for k, shape in enumerate(shapes)}
    report = Report.of("onnx", {}, 0, 0.0, 1e-5, specs)
    assert report.dynamic == dynamic
    assert list(report.shapes.values()) == shapes
