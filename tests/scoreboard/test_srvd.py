"""srvd passes every check of the scoreboard."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.scoreboard.checks import CHECKS, Check
from tests.scoreboard.servers import BIN, running
from tests.scoreboard.wire import Server

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running("srvd", str(BIN / "srvd"), tmp_path_factory.mktemp("srvd")) as found:
        yield found


@pytest.mark.parametrize("check", CHECKS, ids=[check.id for check in CHECKS])
def test_the_check_holds(server: Server, check: Check) -> None:
    assert check.holds(server), f"{check.says} ({check.source})"
