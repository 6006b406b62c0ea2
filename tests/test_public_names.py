import ast
import importlib
import pkgutil
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
PACKAGES = ("app", "flows", "tasks", "models", "store", "benchmarks")


def modules() -> list[str]:
    found = []
    for package in PACKAGES:
        for module in pkgutil.walk_packages([str(PROJECT / package)], prefix=f"{package}."):
            if not module.ispkg:
                found.append(module.name)
    return found


@pytest.mark.parametrize("name", modules())
def test_all_names_what_the_module_defines_and_leaves_out_nothing_public(name):
    module = importlib.import_module(name)
    tree = ast.parse(Path(module.__file__).read_text())
    defined = {
        node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }
    public = {n for n in defined if not n.startswith("_")}
    assert public <= set(module.__all__), f"{name} defines {sorted(public - set(module.__all__))} besides its __all__"
    for exported in module.__all__:
        assert hasattr(module, exported), f"{name} exports {exported}, which is not there"


def test_every_floor_holds_modules():
    assert {name.split(".")[0] for name in modules()} == set(PACKAGES)
