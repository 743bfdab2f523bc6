"""Which files are watched, and which changes count."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from srvd.watcher.files import Extras, Files, forget_bytecode


def write(path: Path, text: str) -> str:
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    ("inside", "counts"),
    [
        ("a.html", True),
        ("deep/b.html", True),
        (".a.html.swp", False),
        ("a.html~", False),
        ("4913", False),
        (".git/index", False),
        ("__pycache__/a.pyc", False),
        ("a.html___jb_tmp___", False),
    ],
)
def test_a_folder_is_watched_without_what_editors_leave_there(inside: str, counts: bool) -> None:
    assert Extras(["/shop/pages"]).have(f"/shop/pages/{inside}") is counts
    assert not Extras(["/shop/pages"]).have(f"/shop/{inside}")


def test_a_pattern_is_watched() -> None:
    extras = Extras(["/shop/texts/*.json"])
    assert extras.have("/shop/texts/de.json")
    assert not extras.have("/shop/texts/de.po")


def test_a_file_that_is_written_again_by_its_own_load_counts_once(tmp_path: Path) -> None:
    files = Files([])
    made = write(tmp_path / "made.py", "A = 1\n")
    files.add(made)
    for expected in (True, False, False):
        os.utime(write(tmp_path / "made.py", "A = 2\n"), ns=(1, time.time_ns()))
        assert files.changed(made, loading=True) is expected
    os.utime(made, ns=(1, time.time_ns() + 1))
    assert files.changed(made, loading=False)


def test_a_change_between_the_end_of_a_load_and_its_event_is_not_lost(tmp_path: Path) -> None:
    files = Files([])
    module = write(tmp_path / "a.py", "A = 1\n")
    files.replace([module], [])
    write(tmp_path / "a.py", "A = 22\n")
    files.replace([module], [])  # the load that ends now has read the former text
    assert files.changed(module, loading=True)
    assert not files.changed(module, loading=True)


def test_a_file_that_changed_while_it_was_imported_is_noticed(tmp_path: Path) -> None:
    files = Files([])
    module = write(tmp_path / "a.py", "A = 1\n")
    found = os.stat(module)
    assert not files.add(module, (found.st_mtime_ns, found.st_size, found.st_ino))
    write(tmp_path / "a.py", "A = 22\n")
    assert Files([]).add(module, (found.st_mtime_ns, found.st_size, found.st_ino))
    assert files.newer([str(tmp_path / "b.py"), module], 0) == set()
    assert Files([]).newer([module], time.time() - 1000) == {module}


def test_a_new_module_counts_while_the_code_is_broken(tmp_path: Path) -> None:
    files = Files([])
    files.add(write(tmp_path / "a.py", ""))
    assert not files.concerns(str(tmp_path / "new.py"))
    files.broken = True
    assert files.concerns(str(tmp_path / "new.py"))
    assert not files.concerns(str(tmp_path / "notes.txt"))


def test_a_link_on_the_way_and_its_target_are_watched(tmp_path: Path) -> None:
    write(tmp_path / "one" / "a.py", "A = 1\n")
    write(tmp_path / "two" / "a.py", "A = 2\n")
    (tmp_path / "current").symlink_to("one")
    files = Files([])
    files.add(str(tmp_path / "current" / "a.py"))
    assert {str(tmp_path), str(tmp_path / "current"), str(tmp_path / "one")} <= files.folders()
    assert files.concerns(str(tmp_path / "one" / "a.py"))
    (tmp_path / "current").unlink()
    (tmp_path / "current").symlink_to("two")
    assert files.changed(str(tmp_path / "current"), loading=False)


def test_a_removed_folder_is_waited_for_from_above(tmp_path: Path) -> None:
    files = Files([])
    files.add(str(tmp_path / "gone" / "deep" / "a.py"))
    assert files.folders() == {str(tmp_path)}


def test_cached_bytecode_of_a_changed_module_is_removed(tmp_path: Path) -> None:
    """Two saves within a second, of the same size, look the same to Python."""
    write(tmp_path / "__pycache__" / "a.cpython-311.pyc", "")
    kept = write(tmp_path / "__pycache__" / "ab.cpython-311.pyc", "")
    forget_bytecode(str(tmp_path / "a.py"))
    assert [str(path) for path in (tmp_path / "__pycache__").iterdir()] == [kept]
