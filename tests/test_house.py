"""Which part of the house may import which: imports go one way, and none of them hides."""

import ast
import graphlib
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
# From the ground up: a part imports from the lines above its line, and from itself. Parts on one
# line do not know of each other.
FLOORS = [
    ["arguments", "backends", "copying", "inside"],
    ["files"],
    ["activations", "initializers", "losses", "tasks"],
    ["cells"],
    ["recurrence"],
    ["keras_cells"],
    ["layers"],
    ["updates"],
    ["diagnostics"],
    ["callbacks"],
    ["export", "tuning"],
]


def modules():
    """The path of each module of the package by its name."""
    paths = {}
    for start, folder in (
        ("kerasrnn", ROOT / "kerasrnn"),
        ("kerasrnn.callbacks", ROOT / "callbacks"),
    ):
        for path in folder.rglob("*.py"):
            # `kerasrnn/callbacks` is a link to the second folder.
            if start == "kerasrnn" and "callbacks" in path.relative_to(folder).parts:
                continue
            names = path.relative_to(folder).with_suffix("").parts
            names = names[:-1] if names[-1] == "__init__" else names
            paths[".".join((start, *names))] = path
    return paths


MODULES = modules()
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}


def imports(tree):
    """The names of all modules, of this package and others, that are imported anywhere in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            yield from inside & MODULES.keys() or {node.module}


def part_of(name):
    """The part of the house that a module belongs to; "" for the package itself."""
    return name.partition(".")[2].partition(".")[0]


FLOOR = {part: floor for floor, parts in enumerate(FLOORS) for part in parts}


def test_every_part_has_its_floor():
    assert {part_of(name) for name in MODULES} - {""} == FLOOR.keys()


@pytest.mark.parametrize("name", [name for name in MODULES if part_of(name)])
def test_no_module_imports_upwards(name):
    part = part_of(name)
    others = {part_of(one) for one in imports(TREES[name]) if one.startswith("kerasrnn")} - {part}
    assert {one for one in others if one not in FLOOR or FLOOR[one] >= FLOOR[part]} == set()


def test_no_modules_import_each_other_in_a_circle():
    graph = {name: set(imports(tree)) & MODULES.keys() for name, tree in TREES.items()}
    # A package hands on the names of what is inside.
    graph = {name: needs for name, needs in graph.items() if MODULES[name].stem != "__init__"}
    graphlib.TopologicalSorter(graph).prepare()


def test_imports_hide_in_no_function():
    """But that of matplotlib, for which who draws nothing does not wait."""
    hidden = {
        (name, imported)
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        for imported in imports(node)
    }
    assert hidden == {("kerasrnn.diagnostics.plots", "matplotlib.figure")}


def test_matplotlib_is_for_figures_alone():
    drawing = {
        name
        for name, tree in TREES.items()
        if any(one.partition(".")[0] == "matplotlib" for one in imports(tree))
    }
    assert drawing == {"kerasrnn.diagnostics.plots"}
