"""The control server's `Backend`: turns orders into events of the core, and answers questions from the core's state.

Changes nothing itself: effects come from the core. What an answer says of a worker, an operation or a death is made in
`answers.py`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any, Protocol

from srvd import __version__
from srvd.config import show
from srvd.config.settings import Config
from srvd.core.actions import Opened, Refused
from srvd.core.events import CancelAsked, Event, Ordered
from srvd.core.model import Actor, Kind, OpId, Order, Phase, Revision
from srvd.core.reports import death_records
from srvd.core.state.model import Operation, Pool, SupervisorState
from srvd.core.state.workers import Worker
from srvd.core.status import view
from srvd.daemon.children import dump
from srvd.daemon.children.dump import Dumps, Subject
from srvd.daemon.control import answers
from srvd.daemon.control.peers import Peer
from srvd.errors import BadArgs, NoSuchOperation, NoSuchPool, NoSuchWorker, UnknownMethod, from_wire

Map = dict[str, Any]


class Workers(answers.Measures, dump.Workers, Protocol):
    """The processes of workers: measured, and asked for their stacks."""


class Configs(Protocol):
    """The configuration in force, and each that a generation still serves with."""

    @property
    def config(self) -> Config: ...

    @property
    def configs(self) -> Mapping[Revision, Config]: ...


class DaemonBackend:
    """Answers for one daemon, over all its programs. `send` hands an event to the core, which calls `answered`."""

    def __init__(
        self,
        state: SupervisorState,
        workers: Workers,
        zygotes: dump.Zygotes,
        send: Callable[[Event], None],
        configs: Configs,
        described: Callable[[], list[Map]],
        began: float,
    ) -> None:
        """`began`: when the daemon was started, in monotonic seconds, whatever programs have run it since."""
        self._state = state
        self._measures: answers.Measures = workers
        self._send = send
        self._configs = configs
        self._described = described
        self._dumps = Dumps(workers, zygotes)
        self._began = began
        self._ticket = 0
        self._answers: list[Opened | Refused] = []

    # -- orders ---------------------------------------------------------------------------------------------------

    def order(self, method: str, args: Map, peer: Peer) -> int:
        """Returns the operation that the order opened, joined, or (op.cancel) names. Raises `SrvdError`: refused."""
        actor = Actor(peer.uid, peer.pid, peer.name)
        if method == "op.cancel":
            return self._ask(CancelAsked(self._next_ticket(), OpId(args["id"]), actor))
        return self.submit(self._order(method, args), actor)

    def submit(self, order: Order, actor: Actor) -> int:
        """Does the same as `order`, for an order that came by a signal."""
        return self._ask(Ordered(self._next_ticket(), order, actor))

    def answered(self, answer: Opened | Refused) -> None:
        """Takes the core's answer to the order that is being sent."""
        self._answers.append(answer)

    def _next_ticket(self) -> int:
        self._ticket += 1
        return self._ticket

    def _ask(self, event: Ordered | CancelAsked) -> int:
        self._send(event)  # the core answers before this returns
        answer = self._answers.pop()
        assert answer.ticket == event.ticket
        if isinstance(answer, Refused):
            raise from_wire(view.fault_map(answer.fault) or {})
        return int(answer.op)

    def _order(self, method: str, args: Map) -> Order:
        kind = Kind(method)
        pool = args.get("pool", "")
        worker = args.get("worker", "")
        if worker:
            found, meant = self._find_worker(worker)
            pool, worker = found.name, str(meant.id)
        elif "@" in str(args.get("to", "")) and not pool:
            pool = self._pool(str(args["to"]).rpartition("@")[0]).name
        elif kind in (Kind.SCALE, Kind.ROLLBACK, Kind.RECYCLE, Kind.PAUSE, Kind.RESUME):
            pool = self._pool(pool).name
        order = Order(kind, pool, timeout=float(args.get("timeout", 0.0)))
        match kind:
            case Kind.SCALE:
                delta = args.get("delta")
                size = args["size"] if args.get("size") is not None else delta or 0
                busy = tuple(str(w.id) for w in self._state.pools[pool].workers() if self._measures.facts(w.id).busy)
                return order._replace(size=size, relative=delta is not None, reset=args.get("reset", False), busy=busy)
            case Kind.RELOAD:
                return order._replace(wait_bake=args.get("bake", False))
            case Kind.ROLLBACK:
                to = str(args.get("to", ""))
                to = f"{pool}@{to}" if to.isdecimal() else to
                return order._replace(wait_bake=args.get("bake", False), to=to)
            case Kind.RECYCLE:
                return order._replace(worker=worker)
            case Kind.STOP:
                return order._replace(now=args.get("now", False))
            case Kind.UPGRADE:
                return order._replace(check=args.get("check", False))
            case _:
                return order

    def _pool(self, name: str) -> Pool:
        """Returns the named pool, or the only one. Raises `BadArgs`, `NoSuchPool`."""
        pools = self._state.pools
        if not name and len(pools) == 1:
            return next(iter(pools.values()))
        known = ", ".join(pools) or "none"
        if not name:
            raise BadArgs("say which pool: there is more than one; nothing was changed", hint=f"pools: {known}")
        if name not in pools:
            raise NoSuchPool(f"there is no pool {name!r}; nothing was changed", hint=f"pools: {known}")
        return pools[name]

    def _find_worker(self, name: str) -> tuple[Pool, Worker]:
        for pool in self._state.pools.values():
            for worker in pool.workers():
                if name in (str(worker.id), f"{pool.name}/{worker.id.generation}.{worker.id.serial}", str(worker.pid)):
                    return pool, worker
        raise NoSuchWorker(f"there is no worker {name!r}", hint="srvctl workers lists them")

    # -- questions ------------------------------------------------------------------------------------------------

    def operation(self, op: int) -> Map:
        """The operation's map. Raises `NoSuchOperation`."""
        return answers.operation(self._state, self._operation(op))

    def query(self, method: str, args: Map, peer: Peer) -> Map:
        """The answer to a question. Raises `SrvdError`."""
        match method:
            case "ping":
                return self._daemon()
            case "status":
                return self._status()
            case "workers":
                return self._workers(args)
            case "why":
                return self._why(args)
            case "op.list":
                return {"operations": [answers.operation(self._state, op) for op in self._state.open_operations]}
            case "op.show" | "op.wait":
                return self.operation(args["id"])
            case "history":
                return self._history(args)
            case "config":
                return show.as_map(show.in_force(self._configs.config, self._made_from()))
            case _:
                raise UnknownMethod(f"the daemon does not know {method!r}")

    def _made_from(self) -> dict[str, Config]:
        """Maps each pool to the configuration it serves with: a reload of one pool leaves those of others in force."""
        configs = self._configs.configs
        sources = {name: pool.source for name, pool in self._state.pools.items()}
        return {name: configs[one.revision] for name, one in sources.items() if one and one.revision in configs}

    def still_draining(self) -> str:
        """Names the workers that drain, with the requests that hold them up; "" when none drains."""
        homes = [one.workers for pool in self._state.pools.values() for one in pool.generations.values()]
        count = sum(workers.count((Phase.DRAINING,)) for workers in homes)
        found = (worker for workers in homes for worker in workers.oldest((Phase.DRAINING,), 3))
        named = []
        for worker in islice(found, 3):
            facts = self._measures.facts(worker.id)
            named.append(f"{worker.id} in {facts.line}" if facts.busy else str(worker.id))
        more = f" and {count - 3} more" if count > 3 else ""
        return f"waits for {', '.join(named)}{more}" if named else ""

    def ask(self, method: str, args: Map, reply: Callable[[Map], None]) -> None:
        """A question that takes time: `reply` is called once, later. Raises `SrvdError` instead."""
        if method != "dump":
            raise UnknownMethod(f"the daemon does not know {method!r}")
        found = self._subjects(args)
        page = found[args["offset"] : args["offset"] + args["limit"]]
        self._dumps.begin(page, args["timeout"], reply, total=len(found))

    def _subjects(self, args: Map) -> list[Subject]:
        wanted = args.get("worker", "")
        if not wanted:
            pools = [self._pool(args["pool"])] if args.get("pool") else self._state.pools.values()
            return self._dumps.subjects(pools)
        if "@" not in wanted:
            return [self._dumps.worker(self._find_worker(wanted)[1])]
        for pool in self._state.pools.values():
            for generation in pool.generations.values():
                if str(generation.id) == wanted:
                    return [self._dumps.zygote(generation)]
        raise NoSuchWorker(f"there is no generation {wanted!r}", hint="srvctl status lists them")

    def _daemon(self) -> Map:
        return {
            "pid": os.getpid(),
            "version": __version__,
            "name": self._configs.config.daemon.name,
            "uptime_s": round(time.monotonic() - self._began, 1),
        }

    def _status(self) -> Map:
        state, now = self._state, time.monotonic()
        pools = []
        for pool in state.pools.values():
            entry = view.pool_map(state, pool)
            entry["workers"] = [answers.brief_worker(worker, self._measures, now) for worker in view.workers(pool)]
            entry["requests"] = pool.answered + sum(worker["requests"] for worker in entry["workers"])
            pools.append(entry)
        stage = "stopping" if state.stop is not None else "running" if state.started else "starting"
        return {
            "daemon": {**self._daemon(), "state": stage},
            "pools": pools,
            "listeners": [self._listener(entry) for entry in self._described()],
            "operations": [answers.brief(answers.operation(self._state, op)) for op in state.open_operations],
            "notices": answers.notices(state),
        }

    def _listener(self, entry: Map) -> Map:
        tls = self._configs.config.tls.get(entry["name"])
        until = min((one.until for one in tls.identities), default=0.0) if tls else 0.0
        return {**entry, "scheme": "https" if tls else "http", "certificate_expires_at": until or None}

    def _workers(self, args: Map) -> Map:
        pools = [self._pool(args["pool"])] if args.get("pool") else list(self._state.pools.values())
        found = [worker for pool in pools for worker in view.workers(pool)]
        page = found[args["offset"] : args["offset"] + args["limit"]]
        now = time.monotonic()
        return {"workers": [answers.full_worker(w, self._measures, now) for w in page], "total": len(found)}

    def _why(self, args: Map) -> Map:
        pools = [self._pool(args["pool"])] if args.get("pool") else list(self._state.pools.values())
        deaths = [death for pool in pools for death in pool.deaths if not death_records.is_departure(death)]
        if args["all"] or args.get("worker"):
            deaths += [
                death
                for pool in pools
                for death in (*pool.departures, *filter(death_records.is_departure, pool.deaths))
            ]
        earliest = args["since"] - time.time() + time.monotonic()
        deaths = [death for death in deaths if death.at >= earliest] if args["since"] else deaths
        wanted = args.get("worker", "")
        if wanted:
            deaths = [death for death in deaths if wanted in answers.names(death)]
            if not deaths and "@" not in wanted:
                self._find_worker(wanted)  # raises if no worker of that name lives either
        deaths.sort(key=lambda death: death.at, reverse=True)
        shown = [answers.death(death) for death in deaths[: args["limit"]]]
        notices = [{"text": text, "at": None} for pool in pools for text in view.mixed(pool)]
        return {"notices": notices, "deaths": shown}

    def _history(self, args: Map) -> Map:
        ended = [op for op in reversed(self._state.operations.values()) if op.state.ended]
        page = ended[args["offset"] : args["offset"] + args["limit"]]
        return {"operations": [answers.brief(answers.operation(self._state, op)) for op in page], "total": len(ended)}

    def _operation(self, op: int) -> Operation:
        found = self._state.operations.get(OpId(op))
        if found is None:
            raise NoSuchOperation(f"there is no operation {op}", hint="srvctl op list, srvctl history")
        return found
