"""The source tree as the tests read it: its files, and what each one imports.

Claims nothing; `tests/test_layers.py` and `tests/test_budgets.py` do.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "srvd"
FILES = sorted(SOURCE.rglob("*.py"))


class Import(NamedTuple):
    module: str
    line: int
    late: bool  # inside of a function


def path_in_source(path: Path) -> str:
    """`worker/main.py`."""
    return str(path.relative_to(SOURCE))


def imports_of(path: Path) -> Iterator[Import]:
    """Every import of a file; `from srvd.core import model` counts as srvd.core.model."""
    tree = ast.parse(path.read_text(), str(path))
    functions = [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    inner = {id(node) for function in functions for node in ast.walk(function)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            assert node.module is not None
            names = [f"{node.module}.{alias.name}" if is_folder(node.module) else node.module for alias in node.names]
        else:
            continue
        for name in names:
            yield Import(name, node.lineno, id(node) in inner)


def is_folder(module: str) -> bool:
    return module.split(".")[0] == "srvd" and (SOURCE.parent / module.replace(".", "/")).is_dir()


def name_of(path: Path) -> str:
    """`srvd.core.model`; that of a folder for its `__init__.py`."""
    return ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts).removesuffix(".__init__")
