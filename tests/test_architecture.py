"""Imports go strictly down the tiers, and the package itself costs nothing to import."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "spatial_retrieval"

# Each module or sub-package belongs to one tier and may import only from lower ones, or from
# inside its own sub-package.
TIERS = [
    {"layers", "ranking", "images", "losses", "files"},
    {"backbone", "data", "index", "rerank"},
    {"model", "localize"},
    {"extract", "plots"},
    {"folder_index", "search", "evaluate"},
    {"train"},
    {"demo"},
    {"cli"},
    {"__main__"},
]
TIER_OF = {name: tier for tier, names in enumerate(TIERS) for name in names}


def modules():
    return sorted(p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py")


def home(path):
    """The tier's name a file belongs to: its module, or its sub-package."""
    return unit(path.relative_to(PACKAGE).parts[0].removesuffix(".py"))


def unit(name):
    return {"training": "train"}.get(name, name)  # the loop and its parts are one


def imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "absolute imports only"
            module = node.module.split(".")
            if module == ["spatial_retrieval"]:
                yield from (alias.name for alias in node.names)
            elif module[0] == "spatial_retrieval":
                yield module[1]
        elif isinstance(node, ast.Import):
            for alias in node.names:
                parts = alias.name.split(".")
                if parts[0] == "spatial_retrieval" and len(parts) > 1:
                    yield parts[1]


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_strictly_down(path):
    own = home(path)
    for name in map(unit, imported(ast.parse(path.read_text(encoding="utf-8")))):
        assert name == own or TIER_OF[name] < TIER_OF[own], f"{own} imports {name}"


def test_every_module_has_a_tier():
    assert {home(path) for path in modules()} <= set(TIER_OF)


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
    for path in modules():
        text = path.read_text(encoding="utf-8")
        for forbidden in (".cuda()", "pickle.load(", "allow_pickle=True", "weights_only=False"):
            assert forbidden not in text, f"{path}: {forbidden}"
