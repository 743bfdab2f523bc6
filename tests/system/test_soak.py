"""The short form of the soak (`python -m tests.soak` is the long one): one of everything, and a few more."""

from __future__ import annotations

import sys

import pytest

from tests.conftest import Starter
from tests.soak.plan import KINDS, plan
from tests.soak.soak import CONFIG, Soak, complaints

SEED = 4


@pytest.mark.system
@pytest.mark.long
def test_whatever_happens_requests_are_lost_only_in_killed_processes(
    starter: Starter, capsys: pytest.CaptureFixture[str]
) -> None:
    srvd = starter(config=CONFIG)
    report = Soak(srvd, plan(SEED, len(KINDS) + 6), 1.0, _hush).run(clients=8)
    with capsys.disabled():
        sys.stdout.write(f"\nseed {SEED}: {report.answered} answered, {report.lost} lost in killed processes\n")
    assert complaints(report) == []
    assert set(report.outcomes) == set(KINDS)
    assert "a bug in srvd" not in srvd.logged()


def test_a_seed_is_a_sequence() -> None:
    assert plan(7, 40) == plan(7, 40) != plan(8, 40)
    assert {action.kind for action in plan(7, len(KINDS))} == set(KINDS)


def _hush(text: str) -> None:
    """Says nothing."""
