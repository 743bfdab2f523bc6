"""Claims about the state that a service manager keeps in memory: one copy is always whole, and the newest is read."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from srvd.daemon.family.lock import FamilyLock
from srvd.daemon.fd_table import FdTable
from srvd.daemon.recovery.fd_store import StoreCopy, find
from srvd.daemon.recovery.state_file import HEADER, LIMIT, Sealed, seal, unseal
from srvd.errors import Unsupported
from srvd.linux.rendezvous import new_name
from srvd.linux.systemd import Passed, Unit

WITH_STORE = Unit(store=8)


@pytest.fixture
def lock() -> Iterator[int]:
    fd = os.memfd_create("lock")
    yield fd
    os.close(fd)


@pytest.fixture
def store_copy() -> Iterator[StoreCopy]:
    made = StoreCopy.create(new_name(), WITH_STORE)
    yield made
    made.close()


def _fd(store_copy: StoreCopy, lock: int) -> int:
    return next(fd for name, fd in store_copy.to_store(lock).items() if name.startswith("srvd/state/"))


def _given_back(table: dict[str, int]) -> Unit:
    """What the next process is given: descriptors of its own."""
    return Unit(store=8, passed=tuple(Passed(name, os.dup(fd)) for name, fd in table.items()))


def test_what_was_written_last_is_read(store_copy: StoreCopy) -> None:
    assert store_copy.read() is None
    for stamp, size in ((1, 100), (2, 5), (3, 100_000), (4, 0), (5, 70)):
        state = Sealed(stamp, bytes([stamp]) * size)
        store_copy.write(seal(state))
        assert store_copy.read() == state


@pytest.mark.parametrize("bytes_written", [0, 1, 4096, 9_000])
def test_a_daemon_that_dies_while_it_writes_leaves_the_former_state(
    store_copy: StoreCopy, lock: int, monkeypatch: pytest.MonkeyPatch, bytes_written: int
) -> None:
    for stamp in (1, 2):
        store_copy.write(seal(Sealed(stamp, bytes([stamp]) * 9_000)))
    left = 0

    def dies(fd: int, data: bytes, offset: int) -> int:
        nonlocal left
        if offset == 0:  # the name
            return len(data)
        if left == 0:
            raise KeyboardInterrupt
        part = bytes(data[:left])
        left -= len(part)
        return plain(fd, part, offset)

    plain = os.pwrite
    for stamp in (3, 4):  # once more by its heir
        left = bytes_written
        monkeypatch.setattr(os, "pwrite", dies)
        with pytest.raises(KeyboardInterrupt):
            store_copy.write(seal(Sealed(stamp, bytes([stamp]) * 9_000)))
        monkeypatch.undo()
        assert store_copy.read() == Sealed(2, b"\2" * 9_000)
    store_copy.write(seal(Sealed(5, b"whole")))
    assert store_copy.read() == Sealed(5, b"whole")


def test_a_copy_takes_no_more_memory_than_it_has_bytes(store_copy: StoreCopy, lock: int) -> None:
    for stamp in (1, 2):
        store_copy.write(seal(Sealed(stamp, b"x" * 5000)))
    assert os.fstat(_fd(store_copy, lock)).st_blocks * 512 <= 6 * os.sysconf("SC_PAGESIZE")


def test_what_is_void_is_neither_read_nor_kept(store_copy: StoreCopy, lock: int) -> None:
    assert len(store_copy.to_store(lock)) == 2
    store_copy.write(seal(Sealed(1, b"old")))
    store_copy.clear()
    assert store_copy.to_store(lock) == {}
    assert store_copy.read() is None
    store_copy.write(seal(Sealed(2, b"new")))
    assert len(store_copy.to_store(lock)) == 2


def test_the_next_daemon_finds_family_lock_and_state(store_copy: StoreCopy, lock: int) -> None:
    store_copy.write(seal(Sealed(7, b"the state")))
    table = store_copy.to_store(lock)
    assert not any(store_copy.family in name for name in table)  # whoever may ask systemd sees the names
    unit = _given_back(table)
    found = find(unit)
    assert found is not None
    assert found.store_copy.family == store_copy.family
    assert found.store_copy.read() == Sealed(7, b"the state")
    assert os.path.sameopenfile(found.lock, lock)
    assert found.store_copy.to_store(found.lock).keys() == table.keys()
    os.close(found.lock)
    found.store_copy.close()


def test_what_is_of_no_use_is_closed(store_copy: StoreCopy, lock: int) -> None:
    store_copy.write(seal(Sealed(7, b"the state")))
    whole = store_copy.to_store(lock)
    empty = StoreCopy.create(new_name(), WITH_STORE)
    state, family = sorted(whole, reverse=True)
    for table in (
        empty.to_store(lock),
        {state: whole[state]},
        {family: whole[family]},
        {state: whole[state], "srvd/family/0": lock},
    ):
        unit = _given_back(table)
        assert find(unit) is None
        for one in unit.passed:
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(one.fd)
    empty.close()


def test_it_is_handed_over_to_another_program(store_copy: StoreCopy) -> None:
    store_copy.write(seal(Sealed(7, b"the state")))
    kept = FdTable()
    store_copy.save(kept)
    assert StoreCopy.restore(store_copy.family, WITH_STORE, kept).read() == Sealed(7, b"the state")
    fresh = StoreCopy.restore(store_copy.family, WITH_STORE, FdTable())  # the former program had none
    assert fresh.has_store
    assert fresh.read() is None
    fresh.close()


@pytest.mark.parametrize("is_stored", [True, False])
def test_a_full_disk_takes_the_name_of_a_family_only_if_it_is_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_stored: bool
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    family_lock = FamilyLock.open(str(tmp_path / "family"), is_stored=is_stored)
    assert family_lock.is_held
    assert bool(family_lock.rendezvous) == is_stored
    family_lock.renew()
    assert bool(family_lock.rendezvous) == is_stored
    family_lock.close(remove=True)


def test_a_lock_that_is_not_found_by_its_path_is_known_to_be_so(tmp_path: Path) -> None:
    family_lock = FamilyLock.open(str(tmp_path / "family"))
    seen = [family_lock.is_in_place]
    (tmp_path / "family").unlink()
    seen.append(family_lock.is_in_place)
    (tmp_path / "family").touch()
    seen.append(family_lock.is_in_place)
    family_lock.renew()
    assert [*seen, family_lock.is_in_place] == [True, False, False, True]
    family_lock.close(remove=True)


def test_without_a_store_there_is_none() -> None:
    for none in (StoreCopy.create(new_name(), Unit()), StoreCopy.create("", WITH_STORE)):
        assert not none.has_store
        assert none.to_store(0) == {}
        none.clear()


def test_a_state_is_whole_or_none() -> None:
    whole = seal(Sealed(3, b"the state"))
    assert unseal(whole) == Sealed(3, b"the state")
    damaged = [whole[:end] for end in range(len(whole))] + [whole + b"\0"]
    damaged += [whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :] for place in range(len(whole))]
    for raw in damaged:
        with pytest.raises(Unsupported):
            unseal(raw)


def test_a_length_that_is_a_lie_is_not_believed(store_copy: StoreCopy, lock: int) -> None:
    store_copy.write(seal(Sealed(1, b"x")))
    fd = _fd(store_copy, lock)
    place = os.pread(fd, 4096, 0).index(b"srvd 1")
    os.pwrite(fd, (1 << 62).to_bytes(8, "little"), place + 16)
    assert store_copy.read() is None
    assert HEADER < LIMIT
