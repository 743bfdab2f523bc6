"""Claims about the file with the state: what becomes of a writing that fails. Its content is others' matter."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from srvd.daemon.loop import Loop
from srvd.daemon.recovery import state_file
from srvd.daemon.recovery.fd_store import StoreCopy
from srvd.daemon.recovery.state_file import StateFile


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


def spin(loop: Loop, seconds: float) -> None:
    loop.call_later(seconds, loop.stop)
    loop.run()


def test_a_state_that_did_not_change_is_neither_encoded_nor_written_again(loop: Loop, tmp_path: Path) -> None:
    path = tmp_path / "control.sock.state"
    encoded: list[bytes] = []

    def content() -> bytes:
        encoded.append(b"%d" % len(encoded))
        return encoded[-1]

    file = StateFile(str(path), StoreCopy(""), content, list[str]().append)
    file.attach(loop)
    file.save()
    file.save()  # a second answer in the same turn
    spin(loop, 0.05)
    assert encoded == [b"0"]
    file.touch()
    file.save()
    spin(loop, 0.05)
    assert encoded == [b"0", b"1"]
    written = state_file.read(str(path))
    assert written is not None
    assert written.data == b"1"
    file.close(remove=True)


def test_a_state_that_could_not_be_written_is_when_it_can_though_nothing_happens(
    loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_file, "_AGAIN", 0.01)
    folder, said = tmp_path / "run", list[str]()
    folder.mkdir()
    path = folder / "control.sock.state"
    content = [b"one", b"two"]
    file = StateFile(str(path), StoreCopy(""), lambda: content[0], said.append)
    file.attach(loop)
    spin(loop, 0.01)
    assert state_file.read(str(path)) is not None
    (folder / "control.sock.state.new").mkdir()  # in the way, as a full disk is
    del content[0]
    file.touch()
    spin(loop, 0.1)
    assert state_file.read(str(path)) is None  # not the former one, which would be believed
    assert len(said) == 1
    assert "cannot adopt its workers" in said[0]
    (folder / "control.sock.state.new").rmdir()
    spin(loop, 0.1)
    written = state_file.read(str(path))
    assert written is not None
    assert written.data == b"two"
    assert len(said) == 2
    assert "whole again" in said[1]
    file.close(remove=True)
    assert list(folder.iterdir()) == []
