"""The threads of one worker: who turns the loop, who runs the application, and how the loop changes hands.

Knows nothing of HTTP, and of connections only that they can be called, settled and handed back.

For `threads = N` there are N + 1 threads, and the main one, which waits for the end: a signal is heard whatever the
application does. The rules, from which the rest follows:

1. The *token* is a lock. Whoever holds it owns the loop, and with it all that the loop's handlers touch: connections,
   gate, orders, deadlines. It is only ever tried, never waited for, so it cannot be part of a deadlock.
2. A connection is the loop's, or one call's: `CALLING` says which. It becomes a call's when the owner of the loop puts
   it into `calls` (whose `popleft` gives it to exactly one thread), and the loop's again by `settle` or `hand_back`. So
   no request is served twice, and no two threads touch one socket.
3. A call needs a seat, and there are N. Of N + 1 threads one at least is in no call.
4. Calls are made with empty hands: no handler of the loop is on the stack below, and the token is free. So nothing has
   to be unwound, and nothing is remembered that could be stale, when the loop has moved meanwhile.
5. Descriptors are waited for level-triggered, and no ready one is set aside: what one turn has not handled the next
   turn, of whatever thread, is told again. So no event is lost.

That somebody turns the loop: the token is free only while the one that let go of it is in a call. Then one thread is in
no call (3). Either it is about to be a spare, and tries the token after it has put itself on the list; or it is on the
list, and was alerted if nobody watches (`_alert`, after the token was let go); or it watches, and takes the token as
soon as that call is `_PATIENCE` old. A call that waits for a seat is seen by the thread that gives one back, for it
looks at `calls` after that.

Quick calls thus run on the thread that has the loop, at the price of letting go of a lock and taking it again. While
calls *block* – as a moving average of the time that they spend not on the processor – a spare is alerted at the
beginning of each, and takes the loop as soon as the interpreter lets it: that is, when the call blocks.
An idle worker has one thread in epoll_wait(2) and all others on locks without a timeout.
"""

from __future__ import annotations

import threading
from queue import Empty, SimpleQueue
from time import monotonic, thread_time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from srvd.worker.observe.recorder import Recorder
    from srvd.worker.wsgi.threaded import CalledConnection, SharedService

__all__ = ["Threads"]

_PATIENCE = 0.005
"""A call that is older loses the loop, and so often is looked. In seconds, as all here."""

_TURN = 0.01
"""For so long calls are made before the loop is turned again: there may be orders."""

_SHORT = 0.0001
"""A call that took less did not block."""

_NONE = 1e-6
"""An average below it need not fade any more."""

_WEIGHT = 1 / 64
"""Of one call in the moving average."""

_COST = 0.0001
"""When calls block for longer on the average, alerting a thread for each is cheaper. A single long one in 64 is not."""


class Threads:
    """Made by the main thread, which calls `run`."""

    def __init__(self, service: SharedService, worker: str) -> None:
        self.service = service
        self.token = threading.Lock()
        self.since = 0.0
        """When the last call began for which the token was let go."""
        self.blocking = 0.0
        """Seconds that a call blocks on the average."""
        self.spares: list[_Thread] = []
        """The last one comes first: its memory is in the caches."""
        self.watching = False
        """Some thread was alerted, and will look at the token at least once more."""
        self._watcher: _Thread | None = None
        self._over = threading.Lock()
        self._failure: BaseException | None = None
        self._all = [_Thread(self, f"{worker} {number}") for number in range(len(service.seats) + 1)]

    def run(self) -> None:
        """Serve until the loop is stopped. Raises what went wrong in any thread's turn of the loop."""
        self._over.acquire()
        for thread in self._all:
            thread.start()
        self._over.acquire()
        if self._failure is not None:
            raise self._failure

    def alert(self) -> None:
        """Have one of the spares look after the token, which was just let go."""
        if self.watching:
            watcher = self._watcher
            if self.blocking > _COST and watcher is not None:
                watcher.poke()
            return
        try:
            thread = self.spares.pop()
        except IndexError:  # whoever is about to be a spare looks at the token first
            return
        self.watching = True
        self._watcher = thread
        thread.wake()

    def end(self, failure: BaseException | None = None) -> None:
        """The loop was stopped, or cannot go on. Its owner keeps the token: nobody turns it any more."""
        self._failure = failure
        self._over.release()


class _Thread:
    """One of them. `poke` and `wake` are called by others."""

    def __init__(self, threads: Threads, name: str) -> None:
        self._threads = threads
        self._service = threads.service
        self._mailbox: SimpleQueue[None] = SimpleQueue()
        self._called = False
        self._poked = False
        self._id = 0
        self._cpu = 0.0  # thread_time() before the calls that are made now
        # daemon: one that hangs in the application does not keep the process.
        self._thread = threading.Thread(target=self._live, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """It was taken off the list of the spares."""
        self._called = True
        self._mailbox.put(None)

    def poke(self) -> None:
        """It watches, and should look at once."""
        if not self._poked:
            self._poked = True
            self._mailbox.put(None)

    def _live(self) -> None:
        self._id = threading.get_ident()
        try:
            while True:
                if self._wait():
                    self._own()
                while self._work_off():
                    self._own()
        except _Over:
            self._threads.end()
        except BaseException as exc:  # the process ends here
            self._threads.end(exc)

    # With the loop

    def _own(self) -> None:
        """Has the token; returns when another thread has it."""
        service, threads = self._service, self._threads
        loop, calls, seats, token = service.loop, service.calls, service.seats, threads.token
        loop.owner = self._id
        while not loop.stopped():
            if not calls or not seats:
                loop.turn()
                if loop.stopped():
                    break
                self._cpu = thread_time()
            turned = now = monotonic()
            while calls:
                try:
                    seat = seats.pop()
                except IndexError:
                    break
                try:
                    connection = calls.popleft()
                except IndexError:
                    seats.append(seat)
                    break
                threads.since = now
                loop.owner = 0  # first: nobody must take itself for the owner when another one may be it
                token.release()
                if not threads.watching or threads.blocking > _COST:
                    threads.alert()
                now = self._call(connection, seat, now, weigh=True)
                if not now:
                    return
                if now - turned > _TURN:
                    loop.later(_nothing)  # not to wait
                    loop.turn()
                    break
        raise _Over

    def _call(self, connection: CalledConnection, seat: Recorder, now: float, *, weigh: bool) -> float:
        """Makes a call, without the token. The time at its end if it has the token then, else 0.0."""
        threads = self._threads
        ended = connection.work(seat, now)
        if ended - now > _SHORT:
            if weigh:
                self._weigh(ended - now)
            self._service.seats.append(seat)
            self._service.seat_is_free()
        else:
            if threads.blocking > _NONE:
                threads.blocking -= threads.blocking * _WEIGHT
            self._service.seats.append(seat)
        if threads.token.acquire(False):
            self._service.loop.owner = self._id
            connection.settle(ended)
            return ended
        connection.hand_back(ended)
        return 0.0

    def _weigh(self, took: float) -> None:
        """A call took that long: for how much of it was the processor not used?"""
        cpu = thread_time()
        blocked = min(max(took - (cpu - self._cpu), 0.0), _PATIENCE)
        self._cpu = cpu
        self._threads.blocking += (blocked - self._threads.blocking) * _WEIGHT

    # Without the loop

    def _work_off(self) -> bool:
        """Makes the calls that wait, if there are seats; True: it has the token after one."""
        service = self._service
        while service.calls:
            try:
                seat = service.seats.pop()
            except IndexError:
                return False
            try:
                connection = service.calls.popleft()
            except IndexError:
                service.seats.append(seat)
                continue  # another one may have come, and found no seat
            # Not weighed: it holds up nobody, and while there are such calls the loop has none to make.
            if self._call(connection, seat, monotonic(), weigh=False):
                return True
        return False

    def _wait(self) -> bool:
        """Waits; True: it has the token, False: there may be calls."""
        threads = self._threads
        threads.spares.append(self)
        if threads.token.acquire(False):
            try:
                threads.spares.remove(self)
            except ValueError:  # alerted just now
                self._await_call()
                threads.watching = False
            return True
        self._await_call()
        return self._watch()

    def _await_call(self) -> None:
        # A mailbox may still have a poke of former times.
        while not self._called:
            self._mailbox.get()
        self._called = False

    def _watch(self) -> bool:
        """Looks after the token while calls are made; True: it has it."""
        threads = self._threads
        while True:
            self._poked = False
            old = monotonic() - threads.since >= _PATIENCE
            if (old or threads.blocking > _COST) and threads.token.acquire(False):
                threads.watching = False
                return True
            if old:  # whoever has the token has no call to make
                threads.watching = False
                return False
            try:
                self._mailbox.get(timeout=_PATIENCE)
            except Empty:
                continue


class _Over(Exception):
    """The loop was stopped."""


def _nothing(now: float) -> None:
    """Is to be done later."""
