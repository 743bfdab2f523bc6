"""Several versions of srvd side by side, as an installer leaves them: a daemon runs whichever the link points to.

Each is a copy of this tree's package with changes in its text. Starts nothing.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import srvd

SOURCE = Path(srvd.__file__).parent

BEING_WRITTEN = shutil.ignore_patterns("*.pyc.*")
"""Bytecode by the name that it has until it is complete: it may be gone when it is copied."""


class Versions:
    """`env` is what a daemon is started with, so that it imports the version in use."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.current = folder / "current"
        self.env = {"PYTHONPATH": str(self.current)}

    def install(self, version: str, edits: dict[str, tuple[str, str]] | None = None) -> Path:
        """Installs it, and has it used from now on. `edits`: by file, a text that occurs once, and what it becomes."""
        package = self.folder / version / "srvd"
        shutil.copytree(SOURCE, package, ignore=BEING_WRITTEN)
        self.edit(version, {"__init__.py": (f'"{srvd.__version__}"', f'"{version}"'), **(edits or {})})
        self.use(version)
        return package

    def edit(self, version: str, edits: dict[str, tuple[str, str]]) -> None:
        """Changes it where it is: an installer that replaces files."""
        for name, (old, new) in edits.items():
            path = self.folder / version / "srvd" / name
            text = path.read_text()
            assert text.count(old) == 1, f"{name} has {text.count(old)} times {old!r}"
            path.unlink()  # not over it: whoever has it open keeps what he has
            path.write_text(text.replace(old, new))

    def use(self, version: str) -> None:
        fresh = self.folder / "fresh"
        fresh.symlink_to(version)
        os.replace(fresh, self.current)
