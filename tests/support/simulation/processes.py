"""Who lives in the simulated world: workers and zygotes as processes, the weather they live in, and who looks on.

Moves nobody: what happens to them is `world.py`'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from srvd.core.actions import Action
from srvd.core.events import Event
from srvd.core.model import Actor, Kind, PoolSpec, Revision, Strategy
from srvd.core.state.deadlines import NEVER
from srvd.ids import GenerationId, WorkerId

if TYPE_CHECKING:
    from tests.support.simulation.world import World

CHANGES = (Kind.START, Kind.RELOAD, Kind.ROLLBACK, Kind.REPAIR)
"""Operations that bring in another generation."""

ROOT = Actor(0, 1, "root")
WEB = PoolSpec("web", workers=4, boot_timeout=20, drain_timeout=10, bake=10, bake_errors=5, rollback_window=60)
API = PoolSpec("api", workers=2, boot_timeout=20, drain_timeout=10, health="/healthz", bake=5, rollback_window=30,
               strategy=Strategy.ROLLING)  # fmt: skip
JOBS = PoolSpec("jobs", workers=1, boot_timeout=20, drain_timeout=10, bake=0, rollback_window=0)
SHOP = (WEB, API)
"""The configuration that each walk begins and ends with."""

NEW_CONFIGS = (
    SHOP,
    (WEB, API, JOBS),
    (WEB,),
    (WEB._replace(workers=6, strategy=Strategy.ROLLING), API),
    (WEB._replace(workers=3, strategy=Strategy.ROLLING, bake=0, boot_timeout=4), API),
    (WEB._replace(workers=2), API._replace(workers=3, health="", strategy=Strategy.BLUE_GREEN)),
)


class Broken(AssertionError):
    """A claim did not hold; `transcript` is the whole story, to be kept as a file and replayed."""

    def __init__(self, message: str, transcript: str) -> None:
        super().__init__(message)
        self.transcript = transcript


@dataclass(slots=True, eq=False)
class Child:
    """A worker process as the world has it. Its deadlines are what the core said or what its pool's settings say."""

    id: WorkerId
    pid: int
    due: float  # when somebody must have moved it on: booted, confirmed, left
    state: str = "booting"  # booting, standby, serving, draining: what it does or was told to do
    known: bool = False  # the core was told of its pid
    told: bool = False  # to serve
    probed: bool = False
    reopened: bool = True
    killed: bool = False
    drained_at: float = NEVER  # when it was told to drain first
    closed: bool = False  # it accepts no more
    dead: bool = False  # and not reported yet
    deaf: bool = False  # ignores the order to leave
    mute: bool = False  # ignores the order to serve
    stopped_until: float = NEVER  # when it must be continued, if it has not gone on by itself
    stubborn: bool = False  # the first SIGKILL finds it in an uninterruptible call
    channel: float = 0.0  # its reports arrive in order
    ready_at: float | None = None


@dataclass(slots=True, eq=False)
class Mother:
    """A zygote process as the world has it."""

    id: GenerationId
    revision: Revision
    app: str
    due: float  # when it must have loaded, or left
    state: str = "loading"  # loading, up, leaving: as the core knows
    drained_at: float = NEVER  # when it was told to drain first
    closed: bool = False  # it accepts no more
    dead: bool = False  # and not reported yet
    deaf: bool = False  # stopped: answers nothing
    owes: float = NEVER  # when it must have forked what it was asked for since
    channel: float = 0.0


class Claims:
    """What is claimed of one subject at every event: see `claims.py`."""

    def __init__(self, world: World) -> None:
        self.world = world

    def before(self, event: Event) -> None:
        """The world is what it is when the core is told."""

    def done(self, action: Action) -> None:
        """One action was performed."""

    def after(self, event: Event, out: list[Action]) -> None:
        """All that followed from the event was performed."""


class Weather(NamedTuple):
    """How bad things are: chances that something goes wrong."""

    app: str = "good"  # the code on disk, see `World._start_zygote` and `World._born`
    fork_fails: float = 0.0
    deaf: float = 0.0
    stubborn: float = 0.0
    liar: float = 0.0
    config_refused: float = 0.0
