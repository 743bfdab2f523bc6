"""The table of the scoreboard, as a command: `python -m tests.scoreboard --peers FOLDER-OF-PROGRAMS`."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from tests.scoreboard.checks import CHECKS, Check
from tests.scoreboard.servers import BIN, program, running
from tests.scoreboard.wire import Server

NAMES = ("srvd", "uvicorn", "hypercorn", "granian", "gunicorn")


def _holds(check: Check, server: Server) -> bool:
    try:
        return check.holds(server)
    except (OSError, ValueError, LookupError, TypeError):
        return False


def failed(name: str, found: str) -> list[str]:
    """The ids of the checks that fail. After one that does, the server is started anew: it may have ended."""
    ids: list[str] = []
    left = list(CHECKS)
    while left:
        with tempfile.TemporaryDirectory() as folder, running(name, found, Path(folder)) as server:
            while left:
                check = left.pop(0)
                if not _holds(check, server):
                    ids.append(check.id)
                    break
    return ids


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.scoreboard", description=__doc__)
    parser.add_argument("--peers", type=Path, default=BIN, help="folder of the other servers' programs")
    peers = parser.parse_args().peers
    print("| server | passed | fails |\n|---|---|---|")  # noqa: T201
    for name in NAMES:
        found = program(name, peers)
        if found is None:
            print(f"| {name} | not installed | |")  # noqa: T201
            continue
        ids = failed(name, found)
        print(f"| {name} | {len(CHECKS) - len(ids)} of {len(CHECKS)} | {' '.join(ids)} |", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
