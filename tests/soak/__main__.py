"""A soak: load from 16 clients while every two seconds something happens. Prints its seed, which replays it.

    python -m tests.soak [--minutes 10] [--seed N] [--every 2] [--clients 16] [--kinds "scale,recycle"] [--quiet]

Ends with 1 if a request was lost outside a killed process, an answer was untrue, or something leaked.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
from pathlib import Path

from tests.soak.plan import KINDS, plan
from tests.soak.soak import CONFIG, Report, Soak, complaints
from tests.support.daemon import Srvd


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--minutes", type=float, default=10.0)
    options.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 20))
    options.add_argument("--every", type=float, default=2.0)
    options.add_argument("--clients", type=int, default=16)
    options.add_argument("--kinds", default=",".join(KINDS))
    options.add_argument("--quiet", action="store_true", help="only the figures")
    given = options.parse_args()
    _say(f"seed {given.seed}")
    with tempfile.TemporaryDirectory(prefix="srvd-soak-") as name:
        srvd = Srvd(Path(name), config=CONFIG)
        srvd.good()
        srvd.start()
        actions = plan(given.seed, int(given.minutes * 60 / given.every), tuple(given.kinds.split(",")))
        try:
            report = Soak(srvd, actions, given.every, _hush if given.quiet else _say).run(given.clients)
            code = srvd.stop()
        finally:
            if srvd.process is not None:
                srvd.process.kill()
        faults = complaints(report) + ([f"srvd ended with {code}"] if code else [])
        faults += ["a bug in srvd, see its log"] if "a bug in srvd" in srvd.logged() else []
        if faults:
            kept = Path(f"soak-{given.seed}.log")
            kept.write_text(srvd.logged())
            _say(f"the log is in {kept}")
    _print(report)
    for fault in faults:
        _say(f"FAULT: {fault}")
    return 1 if faults else 0


def _print(report: Report) -> None:
    before, after = report.before, report.after
    _say(f"requests answered          {report.answered}")
    _say(f"lost in killed processes   {report.lost}")
    _say(f"lost otherwise             {len(report.unexplained)}")
    _say(f"longest gap                {report.gap * 1000:.0f} ms")
    if report.repair:
        median, worst = statistics.median(report.repair) * 1000, max(report.repair) * 1000
        _say(f"repair, median and worst   {median:.0f}, {worst:.0f} ms")
    for kind, codes in sorted(report.outcomes.items()):
        _say(f"{kind:26} " + ", ".join(f"exit {code}: {count}" for code, count in sorted(codes.items())))
    _say(f"daemon, before and after   {before.fds}, {after.fds} descriptors; {before.rss >> 20}, {after.rss >> 20} MiB")
    _say(f"processes                  {before.processes}, {after.processes}")


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _hush(text: str) -> None:
    """Says nothing."""


if __name__ == "__main__":
    sys.exit(main())
