"""Imports go strictly down, no file imports in a circle, and importing the package is free."""

import ast
import subprocess
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "spatial_retrieval"

# Each module or sub-package belongs to one tier and may import only from lower ones, or from
# inside its own sub-package.
TIERS = [
    {"leftovers"},
    {"files", "decoding"},
    {"images", "locks", "ranking", "layers"},
    {"models", "datasets"},
    {"features", "metrics"},
    {"index"},
    {"facades", "rerank", "localize"},
    {"searcher", "indexing", "plots"},
    {"train", "evaluate"},
    {"demo"},
    {"cli"},
    {"__main__"},
]
TIER_OF = {name: tier for tier, names in enumerate(TIERS) for name in names}


def modules():
    return sorted(p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py")


def dotted(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(module):
    """The tier's name a module belongs to: itself, or its sub-package."""
    return module.split(".")[1]


MODULES = {dotted(path): path for path in modules()}


def imported(path):
    """Every module of the package that a file imports, wherever in the file and however spelled."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "absolute imports only"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@cache
def edges():
    """The import graph of all files of the package, without the package's own ``__init__``."""
    return {name: sorted(set(imported(path)) & set(MODULES)) for name, path in MODULES.items()}


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_strictly_down(name):
    own = room(name)
    for target in edges()[name]:
        other = room(target)
        assert other == own or TIER_OF[other] < TIER_OF[own], f"{name} imports {target}"


def test_no_circle_anywhere():
    try:
        order = list(TopologicalSorter(edges()).static_order())
    except CycleError as error:
        pytest.fail(" → ".join(error.args[1]))
    assert set(order) == set(MODULES)


def test_no_file_imports_the_package_itself():
    # the lazy names of the package would hide an arrow from the graph
    for path in MODULES.values():
        assert "spatial_retrieval" not in set(imported(path)), path


def test_every_module_has_a_tier():
    assert {room(name) for name in MODULES} == set(TIER_OF)


def test_the_import_is_light_and_silent():
    code = (
        "import sys, spatial_retrieval; "
        "heavy = {'torch', 'gradio', 'plotly', 'faiss', 'cv2', 'timm'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    run = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_every_public_name_exists_and_is_documented():
    import spatial_retrieval

    for name in spatial_retrieval.__all__:
        found = getattr(spatial_retrieval, name)
        assert isinstance(found, str) or found.__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = spatial_retrieval.nothing
    assert set(spatial_retrieval.__all__) <= set(dir(spatial_retrieval))


def test_library_code_does_not_choose_devices_or_load_pickles():
    for path in MODULES.values():
        text = path.read_text(encoding="utf-8")
        for forbidden in (".cuda()", "pickle.load(", "allow_pickle=True", "weights_only=False"):
            assert forbidden not in text, f"{path}: {forbidden}"


# what each file of its kind has: the same word on purpose
SHARED = {"KIND", "adopt", "recognises", "add_parser"}


def test_each_public_name_stands_once():
    homes = {}
    for name, path in MODULES.items():
        if path.name == "__init__.py":  # a room's own list of what is in it
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
                for public in ast.literal_eval(node.value):
                    homes.setdefault(public, []).append(name)
    twice = {n: found for n, found in homes.items() if len(found) > 1 and n not in SHARED}
    assert twice == {}
