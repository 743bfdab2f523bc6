"""Every decision of the core that is worth a sentence, as a text: what it is told, and what it does then.

A transcript (`transcripts/NAME.txt`) begins with comments, the first of which is its claim, and goes on with

    10.000 > WorkerGone worker=web/1#2 death=(Death signal=9)
           < Fork worker=web/1#3
    75.000 .

an event at its time (monotonic seconds), the actions that follow from it, and, after each `Ended`, a line with `=` that
shows the operation's end as `srvctl op show` would. A dot lets time pass. Events and actions are spelled by
`srvd.core.trace`. Three rules:

- `# after NAME` – the events of that transcript come first; they are claimed there and not here.
- `# with notes` – the sentences for the log are claimed, too; else they are left out.
- A deadline never passes unseen: where the core asked to be woken, there is a `Tick`.

The daemon's trace (`log_level = "debug"`) prints the same lines, so an incident becomes a test:

    python -m tests.core.test_transcripts --from-log daemon.log > tests/core/transcripts/incident.txt

turns the events of a log into a transcript, and

    python -m tests.core.test_transcripts --write tests/core/transcripts/incident.txt …

writes what the core does now (ticks and everything below the events) into the files. Read it before you commit it.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import pytest

from srvd.core.actions import Action, Ended, Note
from srvd.core.events import Event, Tick
from srvd.core.supervisor import Supervisor
from srvd.core.trace import read, spell

FOLDER = Path(__file__).parent / "transcripts"
NAMES = sorted(path.stem for path in FOLDER.glob("*.txt"))

_INPUT = re.compile(r"\s*(\d+\.\d+) (?:(\.)|> (.+))")
_TRACED = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}) DEBUG > (.+)")


@dataclass
class Replay:
    """Runs events through a core and writes down what follows."""

    notes: bool = False
    core: Supervisor = field(default_factory=lambda: Supervisor(limit=16))
    lines: list[str] = field(default_factory=list)

    def until(self, now: float) -> None:
        """Wakes the core wherever it asked for it before `now`."""
        while (due := self.core.next_deadline()) is not None and (woken := _not_before(due)) <= now:
            self.feed(Tick(), woken)
            again = self.core.next_deadline()
            assert again is None or again > woken, f"the deadline {again} is not after the tick at {woken}"

    def feed(self, event: Event, now: float) -> None:
        self.lines.append(f"{now:.3f} > {spell(event)}")
        for action in self.core.handle(event, now):
            self._note(action)

    def _note(self, action: Action) -> None:
        if self.notes or not isinstance(action, Note):
            self.lines.append(f"       < {spell(action)}")
        if isinstance(action, Ended):
            op = self.core.operation(action.op)
            assert op is not None
            said = str(op.result.get("message", "")) if op.fault is None else op.fault.message
            why = "" if op.fault is None else f" {op.fault.code.value}" + (op.fault.step and f" at {op.fault.step}")
            proof = " (with its traceback)" if op.fault is not None and op.fault.traceback else ""
            self.lines.append(f"       = {op.state.value}{why}: {said}{proof}")


def _not_before(due: float) -> float:
    """Times have milliseconds here, so the core is woken a bit late."""
    rounded = round(due, 3)
    return rounded if rounded >= due else round(rounded + 0.001, 3)


def replayed(name: str, text: str) -> str:
    """The transcript as the core plays it now: comments, events and dots of `text`, everything else anew."""
    replay = Replay(notes="# with notes" in text)
    _before(replay, text, {name})
    for line in text.splitlines():
        found = _INPUT.fullmatch(line)
        if found is None:
            if not line.strip() or line.startswith("#"):
                replay.lines.append(line)
            continue
        now = float(found[1])
        event = None if found[2] else read(found[3])
        if isinstance(event, Tick):
            continue
        replay.until(now)
        if event is None:
            replay.lines.append(f"{now:.3f} .")
        else:
            replay.feed(event, now)
    return "\n".join(replay.lines) + "\n"


def _before(replay: Replay, text: str, seen: set[str]) -> None:
    """Plays the transcript that this one begins after, if any."""
    found = re.search(r"^# after (.+)$", text, re.MULTILINE)
    if found is None:
        return
    assert found[1] not in seen, f"{found[1]} begins after itself"
    former = (FOLDER / f"{found[1]}.txt").read_text()
    _before(replay, former, seen | {found[1]})
    for line in former.splitlines():
        event = _INPUT.fullmatch(line)
        if event is not None and event[3]:
            replay.core.handle(read(event[3]), float(event[1]))


def from_log(text: str) -> str:
    """The events of a daemon's log at level debug as a transcript without claim; its time begins at the first."""
    traced = [(datetime.fromisoformat(at), event) for at, event in _TRACED.findall(text)]
    return "# \n\n" + "".join(f"{(at - traced[0][0]).total_seconds():.3f} > {event}\n" for at, event in traced)


@pytest.mark.parametrize("name", NAMES)
def test_the_core_does_what_the_transcript_says(name: str) -> None:
    text = (FOLDER / f"{name}.txt").read_text()
    assert replayed(name, text).splitlines() == text.splitlines()


def test_there_are_transcripts_and_each_claims_something_of_its_own() -> None:
    claims = [(FOLDER / f"{name}.txt").read_text().splitlines()[0] for name in NAMES]
    assert len(claims) >= 32
    assert all(re.fullmatch(r"# [A-Z].{20,}\.", claim) for claim in claims), claims
    assert len(set(claims)) == len(claims)


def test_a_log_of_the_daemon_becomes_a_transcript() -> None:
    log = (
        "2026-01-01 10:00:00.500 INFO  listening on 127.0.0.1:8000 (web)\n"
        "2026-01-01 10:00:01.000 DEBUG > WorkerForked worker=web/1#1 pid=7\n"
        "2026-01-01 10:00:02.250 DEBUG > Tick\n"
    )
    assert from_log(log).splitlines()[2:] == ["0.000 > WorkerForked worker=web/1#1 pid=7", "1.250 > Tick"]


def main(arguments: list[str]) -> None:
    match arguments:
        case ["--from-log", path]:
            sys.stdout.write(from_log(Path(path).read_text()))
        case ["--write", *paths]:
            for transcript in map(Path, paths):
                transcript.write_text(replayed(transcript.stem, transcript.read_text()))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
