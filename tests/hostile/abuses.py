"""An application that abuses its own worker in a request: a table of abuses, each a function of one program.

To add an abuse, add a function `ABUSE(environ, start)` to the text below; what it returns is the response, None a plain
one. `test_applications.py` has a worker do each. Abuses that need another user than the daemon's are in channels.py.
"""

from __future__ import annotations

import re

from tests.hostile.attackers import SOCKETS

__all__ = ["ABUSES", "PROGRAM"]

_TABLE = """
import atexit, ctypes, faulthandler, gc, locale, os, resource, select, signal, socket, sys, threading, time

class Unprintable(Exception):
    def __str__(self):
        raise SystemExit("no text")
    __repr__ = __str__

class Closing:
    def __init__(self, act):
        self.act = act
    def __iter__(self):
        return iter([b"o", b"k"])
    def close(self):
        self.act()

def sockets(listening):
    for fd, sock in open_sockets(socket.AF_INET, socket.SOCK_STREAM):
        try:
            if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == listening:
                yield fd, sock
        finally:
            sock.close()

def raises(error):
    raise error

# -- ends ------------------------------------------------------------------------------------------------------------

def calls_sys_exit(environ, start):
    sys.exit(0)

def raises_system_exit_with_text(environ, start):
    raise SystemExit("the application is over \\x1b[2J")

def calls_os_exit(environ, start):
    os._exit(0)

def raises_keyboard_interrupt(environ, start):
    raise KeyboardInterrupt

def raises_generator_exit(environ, start):
    raise GeneratorExit

def raises_stop_iteration(environ, start):
    raise StopIteration

def raises_base_exception(environ, start):
    raise BaseException("base")

def raises_memory_error(environ, start):
    raise MemoryError

def raises_what_has_no_text(environ, start):
    raise Unprintable

def raises_a_group(environ, start):
    raise BaseExceptionGroup("all", [SystemExit(3), KeyboardInterrupt()])

def raises_a_circle(environ, start):
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    raise one

def recurses(environ, start):
    return recurses(environ, start)

def lowers_the_recursion_limit(environ, start):
    sys.setrecursionlimit(80)

def exits_while_it_is_iterated(environ, start):
    start("200 OK", [])
    return (sys.exit(1) for _ in range(3))

def exits_in_close(environ, start):
    start("200 OK", [])
    return Closing(lambda: sys.exit(1))

def interrupts_in_close(environ, start):
    start("200 OK", [])
    return Closing(lambda: raises(KeyboardInterrupt()))

def aborts(environ, start):
    os.abort()

def crashes(environ, start):
    ctypes.string_at(0)

def kills_itself(environ, start):
    os.kill(os.getpid(), signal.SIGKILL)

def terminates_itself(environ, start):
    os.kill(os.getpid(), signal.SIGTERM)

def kills_its_zygote(environ, start):
    os.kill(os.getppid(), signal.SIGKILL)

def becomes_another_program(environ, start):
    os.execv("/bin/sleep", ["sleep", "20"])

# -- never ends ------------------------------------------------------------------------------------------------------

def spins(environ, start):
    while True:
        pass

def waits_for_itself(environ, start):
    lock = threading.Lock()
    with lock, lock:
        pass

# -- descriptors -----------------------------------------------------------------------------------------------------

def closes_all_descriptors(environ, start):
    os.closerange(0, 1000)

def closes_all_but_output(environ, start):
    os.closerange(3, 1000)

def closes_output(environ, start):
    os.close(1), os.close(2)

def closes_output_objects(environ, start):
    sys.stdout.close(), sys.stderr.close()

def loses_output_objects(environ, start):
    sys.stdout = sys.stderr = sys.__stderr__ = None

def puts_null_everywhere(environ, start):
    null = os.open("/dev/null", os.O_RDWR)
    for fd in map(int, os.listdir("/proc/self/fd")):
        os.dup2(null, fd)

def closes_the_listener(environ, start):
    for fd, _ in sockets(True):
        os.close(fd)

def closes_its_connection(environ, start):
    for fd, _ in sockets(False):
        os.close(fd)

def closes_epoll(environ, start):
    for fd in map(int, os.listdir("/proc/self/fd")):
        try:
            if "eventpoll" in os.readlink(f"/proc/self/fd/{fd}"):
                os.close(fd)
        except OSError:
            pass

def makes_all_blocking(environ, start):
    for _, sock in (*sockets(True), *sockets(False)):
        sock.setblocking(True)

# -- children --------------------------------------------------------------------------------------------------------

def forks_and_returns_twice(environ, start):
    os.fork()

def forks_and_exits(environ, start):
    if os.fork() == 0:
        sys.exit(0)

def forks_and_raises(environ, start):
    if os.fork() == 0:
        raise KeyboardInterrupt

# -- state of the process --------------------------------------------------------------------------------------------

def ignores_all_signals(environ, start):
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        try:
            signal.signal(number, signal.SIG_IGN)
        except OSError:
            pass

def exits_at_any_signal(environ, start):
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD):
        signal.signal(number, lambda *_: os._exit(5))

def sets_an_alarm(environ, start):
    signal.setitimer(signal.ITIMER_REAL, 0.05)

def blocks_all_signals(environ, start):
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())

def shuts_umask(environ, start):
    os.umask(0o777)

def leaves_its_folder(environ, start):
    os.chdir("/proc/self")

def allows_no_files(environ, start):
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))

def allows_no_bytes(environ, start):
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

def is_nice(environ, start):
    os.nice(19)

def leaves_its_session(environ, start):
    os.setsid()

def calls_itself_the_daemon(environ, start):
    ctypes.CDLL(None).prctl(15, b"srvd: daemon", 0, 0, 0)

def hides_its_memory(environ, start):
    ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)

# -- state of the interpreter ----------------------------------------------------------------------------------------

def forgets_all_modules(environ, start):
    sys.modules.clear()

def forgets_its_environment(environ, start):
    os.environ.clear()

def turns_the_clock(environ, start):
    time.time = lambda: -1e12

def traces_with_errors(environ, start):
    def trace(*_):
        raise SystemExit
    threading.settrace(trace)
    sys.settrace(trace)

def has_no_hooks(environ, start):
    sys.excepthook = threading.excepthook = sys.unraisablehook = None

def disables_dumps(environ, start):
    faulthandler.disable()

def collects_nothing(environ, start):
    gc.disable()
    gc.set_threshold(0)

def changes_the_locale(environ, start):
    locale.setlocale(locale.LC_ALL, "C")

def starts_threads(environ, start):
    for _ in range(200):
        threading.Thread(target=time.sleep, args=(2,), daemon=True).start()

def fails_at_exit(environ, start):
    atexit.register(sys.exit, 9)
    os.kill(os.getpid(), signal.SIGTERM)

# -- what WSGI gives -------------------------------------------------------------------------------------------------

def empties_the_environ(environ, start):
    environ.clear()

def closes_input_and_errors(environ, start):
    environ["wsgi.input"].close()
    environ["wsgi.errors"].close()

def keeps_start_response(environ, start, kept=[]):
    for former in kept:
        former("200 OK", [("X-Evil", "1")])
    kept.append(start)

def writes_when_it_is_over(environ, start):
    write = start("200 OK", [("Content-Length", "2")])
    threading.Timer(0.02, write, [b"evil"]).start()
    return [b"ok"]

def gives_a_huge_field(environ, start):
    start("200 OK", [("X-Long", "x" * 5_000_000), ("Content-Length", "2")])
    return [b"ok"]

def gives_many_fields(environ, start):
    start("200 OK", [(f"X-{number}", "x") for number in range(50_000)] + [("Content-Length", "2")])
    return [b"ok"]

def gives_a_huge_body(environ, start):
    start("200 OK", [])
    return [b"x" * 50_000_000]
"""

ABUSES = tuple(re.findall(r"^def (\w+)\(environ, start(?:, kept=\[\])?\)", _TABLE, re.M))

PROGRAM = (
    SOCKETS
    + _TABLE
    + """
def app(environ, start_response):
    name = environ["PATH_INFO"][1:]
    result = globals()[name](environ, start_response) if name else None
    if result is None:
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
        return [b"ok"]
    return result
"""
)
