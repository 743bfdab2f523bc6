"""Claims about paths that root may write to: what a path leads to is what the kernel makes of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from srvd.linux import trust

root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has anything to lose")


def test_two_dots_behind_a_link_lead_where_the_kernel_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `--log-file ../../shared/srvd.log` in `current -> releases/2`."""
    (tmp_path / "releases" / "2").mkdir(parents=True)
    (tmp_path / "shared").mkdir()
    (tmp_path / "current").symlink_to("releases/2")
    wanted = os.path.realpath(tmp_path / "shared" / "srvd.log")
    assert os.path.realpath(trust.settle(f"{tmp_path}/current/../../shared/srvd.log")) == wanted
    monkeypatch.chdir(tmp_path / "current")
    assert os.path.realpath(trust.settle("../../shared/srvd.log")) == wanted


@root
def test_a_path_that_begins_with_what_the_kernel_makes_is_looked_at_if_it_leaves_that(tmp_path: Path) -> None:
    assert trust.settle("/dev/stderr") == "/dev/stderr"
    own = tmp_path / "own"
    own.mkdir()
    os.chown(own, 12345, -1)
    for path in (f"{own}/x.log", f"/dev/..{own}/x.log", f"/proc/self/../..{own}/x.log"):
        with pytest.raises(PermissionError, match="belongs to uid 12345"):
            trust.settle(path)
