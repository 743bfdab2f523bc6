"""The threads of one worker: which thread turns the loop, which ones call the application, and how the loop passes from
one thread to another.

Knows nothing about HTTP, and about connections only that they can be called, settled and handed back.

For `threads = N` there are N + 1 threads, and the main thread, which waits for the end and so handles signals at once,
whatever the application does. The rules, from which the rest follows:

1. The *token* is a lock. The thread that holds the token owns the loop, and everything that handlers of the loop use:
   connections, acceptor, commands, deadlines. Threads try to take the token and never wait for it, so the token cannot
   be part of a deadlock.
2. A connection belongs to the loop or to one call: `CALLING` tells which. The owner of the loop gives the connection to
   a call by putting it into `calls` (whose `popleft` gives it to exactly one thread); `settle` or `hand_back` return it
   to the loop. So no request is served twice, and no two threads use one socket.
3. A call needs a recorder of its own, and there are N. So of N + 1 threads at least one is in no call.
4. A thread makes a call only outside of all handlers of the loop, and without the token. So no stack has to be unwound,
   and no local variable can be stale, if another thread has turned the loop meanwhile.
5. epoll is level-triggered, and no ready descriptor is set aside: events not handled in one turn are reported again in
   the next turn, of whichever thread. So no event is lost.

Proof that a thread turns the loop: the token is free only while the thread that released it is in a call. Then one
thread is in no call (3). That thread is in one of three states. Before it becomes a spare, it puts itself on the list
and then tries the token. On the list, it is alerted if no thread watches (`alert`, called after the release of the
token). Or it watches, and takes the token as soon as the call is `_PATIENCE` old. A call that waits for a recorder is
found by the thread that gives a recorder back, because that thread looks at `calls` afterwards.

So quick calls run on the thread that has the loop, at the price of releasing and taking a lock. While calls *block* –
by a moving average of their time without the processor – a spare is alerted at the beginning of each call, and takes
the loop as soon as it gets the interpreter's lock, which is when the call blocks.
An idle worker has one thread in epoll_wait(2); all others wait for locks without a timeout.
"""

from __future__ import annotations

import threading
from queue import Empty, SimpleQueue
from time import monotonic, thread_time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from srvd.worker.observe.recorder import Recorder
    from srvd.worker.wsgi.threaded import ThreadedConnection, ThreadedContext

__all__ = ["Threads"]

_PATIENCE = 0.005
"""The age at which a call loses the loop, and the time between two looks at it. In seconds, like all these constants.
"""

_TURN = 0.01
"""The longest time of calls between two turns of the loop, which may have commands waiting."""

_SHORT = 0.0001
"""A shorter call did not block."""

_NONE = 1e-6
"""An average below this is taken for zero."""

_SHARE = 1 / 64
"""The weight of one call in the moving average."""

_COST = 0.0001
"""If calls block for longer on average, alerting a thread for each pays. A single long call in 64 is below it."""


class Threads:
    """The threads of a worker. The main thread makes this object and calls `run`."""

    def __init__(self, context: ThreadedContext, worker: str) -> None:
        self.context = context
        self.token = threading.Lock()
        self.since = 0.0
        """When the last call began for which a thread has released the token."""
        self.blocking = 0.0
        """Average seconds for which a call blocks."""
        self.spares: list[_Thread] = []
        """Threads without work. The last is alerted first: its memory is in the caches."""
        self.watching = False
        """Whether a thread was alerted, and will look at the token at least once more."""
        self._watcher: _Thread | None = None
        self._over = threading.Lock()
        self._failure: BaseException | None = None
        self._all = [_Thread(self, f"{worker} {number}") for number in range(len(context.free_recorders) + 1)]

    def run(self) -> None:
        """Serves until the loop is stopped. Raises the exception of any thread's turn of the loop."""
        self._over.acquire()
        for thread in self._all:
            thread.start()
        self._over.acquire()
        if self._failure is not None:
            raise self._failure

    def alert(self) -> None:
        """Makes a spare thread watch the token, which was just released."""
        if self.watching:
            watcher = self._watcher
            if self.blocking > _COST and watcher is not None:
                watcher.poke()
            return
        try:
            thread = self.spares.pop()
        except IndexError:  # a thread about to become a spare tries the token first
            return
        self.watching = True
        self._watcher = thread
        thread.wake()

    def end(self, failure: BaseException | None = None) -> None:
        """Ends `run`, after the loop was stopped or has failed. The owner keeps the token, so no thread turns the loop
        any more.
        """
        self._failure = failure
        self._over.release()


class _Thread:
    """One of the threads. Other threads call `poke` and `wake`."""

    def __init__(self, threads: Threads, name: str) -> None:
        self._threads = threads
        self._context = threads.context
        self._mailbox: SimpleQueue[None] = SimpleQueue()
        self._called = False
        self._poked = False
        self._id = 0
        self._cpu = 0.0  # thread_time() before the present calls
        # daemon: a thread that hangs in the application does not keep the process from ending.
        self._thread = threading.Thread(target=self._live, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """Wakes this thread, after it was taken off the list of spares."""
        self._called = True
        self._mailbox.put(None)

    def poke(self) -> None:
        """Makes this thread, which watches the token, look at once."""
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
        """Turns the loop and makes calls while this thread has the token; returns when another thread has it."""
        context, threads = self._context, self._threads
        loop, calls, recorders, token = context.loop, context.calls, context.free_recorders, threads.token
        loop.owner = self._id
        while not loop.stopped():
            if not calls or not recorders:
                loop.turn()
                if loop.stopped():
                    break
                self._cpu = thread_time()
            turned = now = monotonic()
            while calls:
                try:
                    recorder = recorders.pop()
                except IndexError:
                    break
                try:
                    connection = calls.popleft()
                except IndexError:
                    recorders.append(recorder)
                    break
                threads.since = now
                loop.owner = 0  # before the release: no two threads may take themselves for the owner
                token.release()
                if not threads.watching or threads.blocking > _COST:
                    threads.alert()
                now = self._call(connection, recorder, now, weigh=True)
                if not now:
                    return
                if now - turned > _TURN:
                    loop.later(_nothing)  # so that this turn does not wait
                    loop.turn()
                    break
        raise _Over

    def _call(self, connection: ThreadedConnection, recorder: Recorder, now: float, *, weigh: bool) -> float:
        """Makes a call, without the token. Returns the time at the end if this thread gets the token then, else 0.0."""
        threads = self._threads
        ended = connection.work(recorder, now)
        if ended - now > _SHORT:
            if weigh:
                self._weigh(ended - now)
            self._context.free_recorders.append(recorder)
            self._context.recorder_is_free()
        else:
            if threads.blocking > _NONE:
                threads.blocking -= threads.blocking * _SHARE
            self._context.free_recorders.append(recorder)
        if threads.token.acquire(False):
            self._context.loop.owner = self._id
            connection.settle(ended)
            return ended
        connection.hand_back(ended)
        return 0.0

    def _weigh(self, took: float) -> None:
        """Adds the time for which a call blocked, its duration minus its CPU time, to the moving average."""
        cpu = thread_time()
        blocked = min(max(took - (cpu - self._cpu), 0.0), _PATIENCE)
        self._cpu = cpu
        self._threads.blocking += (blocked - self._threads.blocking) * _SHARE

    # Without the loop

    def _work_off(self) -> bool:
        """Makes waiting calls, while recorders are free. Returns True if this thread got the token."""
        context = self._context
        while context.calls:
            try:
                recorder = context.free_recorders.pop()
            except IndexError:
                return False
            try:
                connection = context.calls.popleft()
            except IndexError:
                context.free_recorders.append(recorder)
                continue  # another call may have been queued meanwhile, without a recorder
            # Not weighed: this call does not hold up the loop, and while calls wait the loop's owner makes none.
            if self._call(connection, recorder, monotonic(), weigh=False):
                return True
        return False

    def _wait(self) -> bool:
        """Waits as a spare. Returns True if this thread has the token; False if calls may wait."""
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
        # The mailbox may still hold an earlier poke.
        while not self._called:
            self._mailbox.get()
        self._called = False

    def _watch(self) -> bool:
        """Watches the token. Returns True once this thread has it; False if the thread that has it makes no call."""
        threads = self._threads
        while True:
            self._poked = False
            old = monotonic() - threads.since >= _PATIENCE
            if (old or threads.blocking > _COST) and threads.token.acquire(False):
                threads.watching = False
                return True
            if old:  # the token's holder makes no call
                threads.watching = False
                return False
            try:
                self._mailbox.get(timeout=_PATIENCE)
            except Empty:
                continue


class _Over(Exception):
    """The loop was stopped."""


def _nothing(now: float) -> None:
    """Does nothing: a postponed call that keeps the loop from waiting."""
