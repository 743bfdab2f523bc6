"""A process of a pool's user that is no worker: a table of channel × abuse, each a function of one program.

To add an abuse, add a function `CHANNEL__ABUSE(dice)` to the text below; `system/test_pool_users.py` tries each alone,
and all of local_users.py as well. Arguments of the program: the path of the control socket, the daemon's pid, pids of
all that it must not touch (with commas), the user's own folder, where the pool has its code and a Unix listener
`web.sock`, a file of root's, pids of its own pool, and the port of the other pool. Claims nothing.

What has a test of its own is not here: code of the user before it is the user's process, the places of log and pidfile
(test_root.py), what its workers may do (channels.py).
"""

from __future__ import annotations

from tests.hostile.attackers import ATTEMPTS, DICE, PEER, abuses_of

__all__ = ["ABUSES", "PROGRAM", "RELOADED"]

_TABLE = """
import ctypes, signal, stat, threading
PATH, DAEMON, TARGETS = sys.argv[1], int(sys.argv[2]), [int(pid) for pid in sys.argv[3].split(",")]
OWN, ROOTS, POOL = sys.argv[4], sys.argv[5], [int(pid) for pid in sys.argv[6].split(",")]
OTHER = int(sys.argv[7])
LISTENER, APP, SECONDS = os.path.join(OWN, "web.sock"), os.path.join(OWN, "app.py"), 1.5
libc = ctypes.CDLL(None, use_errno=True)

def during(act):
    '''Again and again, while root reloads.'''
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        try:
            act()
        except OSError:  # what root has made is in the way, or away
            pass
        tried.append("once")

def cleared(path):
    try:
        os.rmdir(path) if os.path.isdir(path) and not os.path.islink(path) else os.unlink(path)
    except OSError:
        pass

# -- the Unix listener in its folder --------------------------------------------------------------------------------

def swapped(one, other):
    '''So often that root meets each moment of it.'''
    one, other = one.encode(), other.encode()
    during(lambda: [libc.renameat2(-100, one, -100, other, 2) for _ in range(501)])  # RENAME_EXCHANGE

def listener__is_exchanged_for_a_link(dice):
    '''Root gives the path of a listener its mode: what it leads to must not get it.'''
    os.symlink(ROOTS, f"{OWN}/link")
    swapped(LISTENER, f"{OWN}/link")

def listener__is_exchanged_for_the_control_socket(dice):
    os.symlink(PATH, f"{OWN}/link")
    swapped(LISTENER, f"{OWN}/link")

def listener__folder_is_exchanged(dice):
    os.mkdir(f"{OWN}/deep")
    os.symlink(os.path.dirname(ROOTS), f"{OWN}/away")
    swapped(f"{OWN}/deep", f"{OWN}/away")

def listener__is_something_else(dice):
    def act():
        for make in (os.mkfifo, os.mkdir, lambda path: open(path, "w").close(), lambda path: os.symlink("/", path)):
            cleared(LISTENER)
            make(LISTENER)
            time.sleep(0.02)
    during(act)
    cleared(LISTENER)

def listener__is_a_socket_of_its_own(dice):
    def act():
        cleared(LISTENER)
        with socket.socket(socket.AF_UNIX) as taken:
            taken.bind(LISTENER)
            taken.listen(0)
            time.sleep(0.02)
    during(act)
    cleared(LISTENER)

# -- its code and its variables -------------------------------------------------------------------------------------

def code__is_no_file(dice):
    '''Whatever root reads to tell that code has changed must not have it wait, or read what the user may not.'''
    good = open(APP, "rb").read()
    for make in (os.mkfifo, os.mkdir, lambda path: os.symlink(ROOTS, path), lambda path: os.symlink("/dev/zero", path),
                 lambda path: os.symlink(path, path)):
        cleared(APP)
        make(APP)
        time.sleep(0.5)
    cleared(APP)
    open(APP, "wb").write(good)
    tried.append("code")

def code__is_planted(dice):
    '''Modules that srvd itself imports, beside the application: each tells as whom it was run.'''
    tell = f"import os\\nopen({OWN!r} + '/ran-as-' + str(os.getuid()), 'a').close()\\n"
    names = ("sitecustomize", "usercustomize", "json", "msgpack", "srvd", "socket", "signal")
    for name in names:
        open(f"{OWN}/{name}.py", "w").write(tell + "raise ImportError('planted')\\n")
    time.sleep(SECONDS)
    for name in names:
        os.unlink(f"{OWN}/{name}.py")
    must(not os.path.exists(f"{OWN}/ran-as-0"), "ran as root")

# -- its own processes ----------------------------------------------------------------------------------------------

def own__has_no_power(dice):
    '''To the kernel its zygote and workers are its own, so they must have nothing of root's.'''
    for pid in POOL:
        status = dict(line.split(":", 1) for line in open(f"/proc/{pid}/status").read().splitlines())
        for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
            must(int(status[name], 16) == 0, f"{name} of {pid}: {status[name]}")
        for name in ("Uid", "Gid", "Groups"):
            ids = set(status[name].split())
            must(ids <= {str(os.getuid())}, f"{name} of {pid}: {ids}")

def own__descriptors(dice):
    '''What its own processes hold, it can take: so they hold nothing of the daemon's or of the other pool's.'''
    lines = [line.split() for line in open("/proc/net/tcp").readlines()[1:]]
    inodes = {words[9] for words in lines if words[3] == "0A" and int(words[1].partition(":")[2], 16) == OTHER}
    must(inodes, "listeners of others are found")
    for pid in POOL:
        for fd in os.listdir(f"/proc/{pid}/fd"):
            try:
                name = os.readlink(f"/proc/{pid}/fd/{fd}")
                mode = os.lstat(f"/proc/{pid}/fd/{fd}").st_mode
            except OSError:
                continue
            must(not name.endswith((".state", ".lock", "secret", ".sock")), f"{name} of {pid}")
            must(name.partition("[")[2][:-1] not in inodes, f"a listener of the other pool in {pid}")
            writable = mode & stat.S_IWUSR
            must(not (name.endswith(".family") and writable), f"{name} of {pid} for writing")
            if "srvd-bell" in name:
                refused(f"{name} of {pid} for writing", os.open, f"/proc/{pid}/fd/{fd}", os.O_RDWR)

def own__signals(dice):
    '''It ends its own pool, as it may: the daemon starts it anew, and nothing else is ended.'''
    for pid in POOL:
        for number in (signal.SIGSTOP, signal.SIGCONT, signal.SIGKILL):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass
        tried.append(pid)

def own__traces(dice):
    '''A tracer is told first of a death, and holds it: the daemon must not wait for that.'''
    libc.ptrace.argtypes = [ctypes.c_long] * 4
    held = [pid for pid in POOL if libc.ptrace(16, pid, 0, 0) == 0]  # PTRACE_ATTACH
    tried.append(len(held))
    time.sleep(1)

# -- where workers call after a daemon's death ----------------------------------------------------------------------

def rendezvous__with_lies(dice):
    '''As a user of the family it is asked who it is.'''
    names = [line.split("@", 1)[1].strip() for line in open("/proc/net/unix") if "@srvd-" in line]
    must(names, "the rendezvous is open")
    lies = [["CallHome", pool, generation, serial, False, children, ended]
            for pool in ("web", "other", "none", "../web") for generation in (1, 2, 2**40)
            for serial in (0, 1, 2**60) for children, ended in (([], []), ([[1, 1], [2, DAEMON]], [[1, 0, -1]]))]
    for name in names:
        for lie in lies + [["Ready"], ["Bye"], ["Forked", 1, DAEMON], ["CallHome"], [], [["CallHome"]]]:
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as link:
                link.settimeout(0.1)
                try:
                    link.connect("\\0" + name)
                    link.recv(1000)
                    socket.send_fds(link, [pack(lie)], [0] * dice.randrange(20))
                    link.recv(1000)
                except OSError:
                    continue
                tried.append("lie")

def rendezvous__silent(dice):
    held = []
    # All names first: each connection that waits there is a line of that name as well.
    names = {line.split("@", 1)[1] for line in open("/proc/net/unix").read().splitlines() if "@srvd-" in line}
    for name in names:
        for _ in range(200):
            held.append(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            held[-1].setblocking(False)
            try:
                held[-1].connect("\\0" + name)
            except OSError:
                continue
    must(held, "the rendezvous is open")
    time.sleep(0.5)
"""

PROGRAM = DICE + ATTEMPTS + PEER + _TABLE

ABUSES = abuses_of(_TABLE)

RELOADED = tuple(name for name in ABUSES if name.startswith(("listener__", "code__")))
"""Root reloads the pool meanwhile."""
