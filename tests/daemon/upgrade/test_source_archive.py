"""Claims about the daemon's own source in memory: Python imports from it, and it is what runs or nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import srvd
from srvd.daemon.upgrade.source_archive import SourceArchive, is_archive

FOLDER = str(Path(srvd.__file__).parent.parent)


@pytest.fixture
def kept() -> Iterator[SourceArchive]:
    made = SourceArchive()
    assert made.path == ""
    yield made
    os.close(made.fd)


def test_python_imports_from_it(kept: SourceArchive) -> None:
    kept.fill(FOLDER, time.time())
    code = f"import sys; sys.path.insert(0, {kept.path!r}); import srvd.daemon.main as m; print(m.__file__)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], pass_fds=[kept.fd], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == f"{kept.path}/srvd/daemon/main.py", done.stderr


def test_it_is_a_whole_archive_of_every_module(kept: SourceArchive) -> None:
    kept.fill(FOLDER, time.time())
    with zipfile.ZipFile(kept.path) as archive:
        assert archive.testzip() is None
        assert set(archive.namelist()) == {
            str(path.relative_to(FOLDER)) for path in (Path(FOLDER) / "srvd").rglob("*.py")
        }


def test_what_was_replaced_already_is_not_kept(kept: SourceArchive, tmp_path: Path) -> None:
    package = tmp_path / "srvd"
    package.mkdir()
    (package / "__init__.py").write_text("name = 'srvd'")
    kept.fill(str(tmp_path), time.time() + 60)
    assert kept.path
    kept.fill(str(tmp_path), time.time() - 60)
    assert kept.path == ""


def test_what_is_not_there_is_not_kept(kept: SourceArchive, tmp_path: Path) -> None:
    kept.fill(str(tmp_path), time.time())
    assert kept.path == ""


def test_a_folder_that_cannot_be_read_is_not_left_out(kept: SourceArchive, tmp_path: Path) -> None:
    package = tmp_path / "srvd"
    package.mkdir()
    (package / "__init__.py").write_text("name = 'srvd'")
    folder = os.open(package, os.O_RDONLY)
    for _ in range(20):  # a path that is too long for the kernel, for root as well
        os.mkdir("n" * 250, dir_fd=folder)
        upper, folder = folder, os.open("n" * 250, os.O_RDONLY, dir_fd=folder)
        os.close(upper)
    os.close(folder)
    kept.fill(str(tmp_path), time.time() + 60)
    assert kept.path == ""


def test_a_file_whose_name_is_no_text_does_not_break_the_archive(kept: SourceArchive, tmp_path: Path) -> None:
    package = tmp_path / "srvd"
    package.mkdir()
    (package / "__init__.py").write_text("name = 'srvd'")
    (package / os.fsdecode(b"caf\xe9.py")).write_text("")
    kept.fill(str(tmp_path), time.time() + 60)
    with zipfile.ZipFile(kept.path) as archive:
        assert archive.testzip() is None
        assert "srvd/__init__.py" in archive.namelist()


def test_an_archive_is_known_by_its_path(kept: SourceArchive) -> None:
    kept.fill(FOLDER, time.time())
    assert is_archive(kept.path)
    assert not is_archive(FOLDER)


def test_filling_it_takes_little_memory(kept: SourceArchive) -> None:
    """The heap of a daemon does not shrink again after a moment in which it held the whole source."""
    tracemalloc.start()
    try:
        kept.fill(FOLDER, time.time())
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept.path
    assert most < 512 << 10
