"""What gets installed is what stands in the tree, and imports fast and from anywhere."""

import configparser
import os
import pathlib
import re
import subprocess
import sys
import venv
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("*.whl"))


@pytest.mark.slow
def test_the_wheel_holds_the_tree(wheel):
    with zipfile.ZipFile(wheel) as archive:
        shipped = {name for name in archive.namelist() if ".dist-info/" not in name}
    # The link kerasrnn/callbacks stands for the folder beside it.
    sources = {p.relative_to(ROOT) for p in ROOT.glob("kerasrnn/**/*.py")}
    sources |= {"kerasrnn" / p.relative_to(ROOT) for p in ROOT.glob("callbacks/**/*.py")}
    assert shipped == {p.as_posix() for p in sources}


@pytest.mark.slow
def test_the_wheel_works_outside_the_checkout(wheel, tmp_path):
    """Its dependencies come from this environment; what is new in the fresh one is the wheel."""
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    site = subprocess.run(
        [python, "-c", "import site; print(site.getsitepackages()[0])"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    subprocess.run([python, "-m", "pip", "install", "--no-deps", "-q", wheel], check=True)
    code = """
import importlib.util, pathlib, sys
site = pathlib.Path(sys.argv[1])
sys.path.append(sys.argv[2])
import kerasrnn.callbacks, kerasrnn.layers
assert pathlib.Path(kerasrnn.callbacks.__file__).is_relative_to(site), kerasrnn.callbacks.__file__
kerasrnn.callbacks.GradientNormMonitor()
assert importlib.util.find_spec("callbacks") is None
assert not list(site.glob("callbacks*"))
"""
    packages = next(p for p in sys.path if p.endswith("site-packages"))
    done = subprocess.run(
        [python, "-c", code, site, packages], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr


def test_every_package_is_listed():
    """As in the wheel, without building one."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = config["options"]["packages"].split()
    folders = {p.parent.relative_to(ROOT) for p in ROOT.glob("kerasrnn/**/__init__.py")}
    folders |= {"kerasrnn" / p.parent.relative_to(ROOT) for p in ROOT.glob("callbacks/__init__.py")}
    assert sorted(listed) == sorted(".".join(folder.parts) for folder in folders)


def test_import_brings_nothing_that_training_does_not_need():
    code = """
import sys, keras
before = set(sys.modules)
import kerasrnn
new = {name.partition(".")[0] for name in set(sys.modules) - before}
print(sorted(new - set(sys.stdlib_module_names)))
assert callable(kerasrnn.tuning.RNNHyperModel) and callable(kerasrnn.export.export_saved_model)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "['kerasrnn']"


def test_lower_bounds_are_the_versions_tried():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    extras = config["options.extras_require"]
    tried = (extras[name] for name in ("examples", "litert", "onnx"))
    text = "".join([config["options"]["install_requires"], *tried])
    bounds = dict(re.findall(r"^([\w-]+)(?:\[\w+\])?>=(.*)$", text, re.M))
    tried = dict(re.findall(r"^(.*)==(.*)$", (ROOT / "tests/oldest.txt").read_text(), re.M))
    assert bounds == tried


def test_another_backend_is_refused_at_import():
    """No other is installed for the tests: Keras says what it would say."""
    code = 'import keras; keras.backend.backend = lambda: "openvino"; import kerasrnn'
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: kerasrnn runs on Keras's backends tensorflow, jax, torch")
    assert last.endswith("Received: the backend 'openvino'")


@pytest.mark.parametrize(
    ("backend", "missing", "said"),
    [
        ("jx", "", "Unable to import backend : jx"),
        ("jax", "jax", "import of jax halted; None in sys.modules"),
    ],
)
def test_a_backend_that_is_none_or_not_installed_is_named(backend, missing, said):
    code = f"import sys; sys.modules[{missing!r}] = None; import kerasrnn"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: kerasrnn runs on Keras's backends tensorflow, jax, torch")
    assert last.endswith(f"Received from Keras: {said}")
