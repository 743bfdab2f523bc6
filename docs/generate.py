"""Writes docs/reference/ from the declarations in the code: `python docs/generate.py`; `--check` only compares.

Holds no text of its own beyond headings: what is said about a setting, a command or an exit code is said where it is
declared. The picture of the layers is drawn from the table in docs/explain/architecture.md, those of the lives
of a worker and a generation from the tables in core/lifecycle.py.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from enum import Enum
from inspect import cleandoc
from pathlib import Path
from typing import Any, NamedTuple

import click

from srvd.cli import app
from srvd.config import values
from srvd.config.load import variables
from srvd.config.settings import DaemonSettings, ListenerSettings, PoolSettings, Setting, declared
from srvd.core.event_names import EVENTS
from srvd.core.lifecycle import GENERATION, WORKER, WorkerTrigger
from srvd.core.model import Cause, Kind, Phase, Stage
from srvd.ctl import main as ctl
from srvd.daemon.control.limits import Limits
from srvd.errors import CODES, EXIT, NoDaemon
from srvd.http.access_format import ATOMS, PRESETS
from srvd.http.access_line import LONGEST
from srvd.wire.codec import DEPTH, PROTOCOL, REQUESTS, RESPONSES, SCHEMA
from srvd.wire.commands import COMMANDS
from srvd.worker.app.hooks import ABOUT

DOCS = Path(__file__).parent
REFERENCE = DOCS / "reference"
ARCHITECTURE = DOCS / "explain" / "architecture.md"
PICTURE = DOCS / "explain" / "layers.svg"

_MADE = "<!-- made by docs/generate.py; do not edit -->"

_SETTINGS_HEAD = f"""{_MADE}
# Settings

Every setting, its TOML key, its flag of `srvd start`, its variable and its default. Later ones win: defaults, `PORT`
and `WEB_CONCURRENCY`, the file (`-c FILE`, or `srvd.toml` in the working directory), `SRVD_` variables, flags. `srvd
config` shows the values in force and where each comes from.

Relative paths in a file start from its folder, others from the working directory. In a variable, the items of a list
stand between commas. Flags and variables of a listener or a pool set the only one there is; with several, say it in
the file.

A file may name variables of the environment in any text, and in place of a number, as in
`bind = ["0.0.0.0:${{PORT:-5001}}"]` and `threads = "${{APP_THREADS:-8}}"`. The text after `:-` is taken if the variable
is not set or empty; without it, a variable that is not set is an error. `$${{` stands for `${{`. The environment is the
one that the daemon was started with.
"""

_LISTENER = """[listeners.web]
bind = ["0.0.0.0:8000", "unix:/run/shop/web.sock"]"""

_POOLS = (
    "An application and its workers. A file names the `app` of each; one without any pool needs APP on the command "
    'line or `SRVD_APP`, and the pool is called "web". The demo is served only where no file is read.'
)

_POOL = """[pools.web]
app = "shop.wsgi:application"
workers = 4
health = "/healthz"
env = { DJANGO_SETTINGS_MODULE = "shop.settings" }"""

_TABLES = (
    ("[daemon]", "Of the daemon itself.", DaemonSettings, "", ""),
    ("[control]", "The control socket, and the roles of users.", DaemonSettings, "control", ""),
    (
        "[listeners.NAME]",
        'Addresses that pools accept on. Without any in the file there is one, called "web".',
        ListenerSettings,
        "",
        _LISTENER,
    ),
    (
        "[pools.NAME]",
        _POOLS,
        PoolSettings,
        "",
        _POOL,
    ),
)

_EXIT_HEAD = f"""{_MADE}
# Exit codes

A script can rely on them: 1 leaves everything as it was, 10 does not.
"""


_ACCESS_HEAD = f"""{_MADE}
# The access log

`access_log` names the file of a pool, `access_log_format` how its lines look. One line a request, at most {LONGEST}
bytes (4096 to a pipe). Everything outside of printable ASCII, `"` and `\\` are written as `\\xHH` (JSON: `\\u00HH`).
The target is that which was received; what is too long is cut with `...`. A request that was refused has a line, too; a
health probe has none.

Lines are written together, at most a second late, by one write that those of other workers cannot tear. A worker that
is killed leaves them to its zygote, which writes them. What a full disk or a full pipe does not take is lost, and
counted in the log of srvd; no request waits for it. Move the file away and say `srvctl reopen`.
"""

_HOOKS_HEAD = f"""{_MADE}
# Hooks

`hooks` names a module of a pool. Functions in it that have one of these names are called with these positional
arguments, on the thread that serves. The module is loaded with the application: before the fork if that is preloaded,
else in each worker; after it, or before it with `hooks_first`. An error in a hook is logged with its name, and what was
under way goes on. A hook that does not take these arguments is refused when it is loaded; a name that begins like a
hook's, or is one of gunicorn's, is told.
"""


_EVENTS_HEAD = f"""{_MADE}
# Events

`srvctl events` shows what has happened, `srvctl events --follow` also what happens, `--json` as one map a line. The
daemon keeps the last 1000 events, over upgrades and over its own death. [The control protocol](wire.md#events) has the
frames.

An event has a `name` that stays the same from version to version, a `topic` to choose by (`--topic`), a time `at`, a
number `seq`, and `data`: a `level`, a `text` for people, and the fields of its name. Words of a `text` may change,
names and fields do not; new names and fields may be added. With `log_format = "json"` the log has the name, too, as
`event`.

Every role may read events. What an application said, as the last line of a traceback, is quoted within a text, and a
viewer is told that text without the quoted words. The column *viewer* says where this may happen.
"""

_EVENTS_OPERATIONS = """
## Operations

The topic is `operation`, and the name begins with the kind of the operation instead of `KIND`: {kinds}. So
`reload.failed` is a reload that failed. `op` is the number of the operation, `actor` the user that gave the order.
"""

_EVENTS_TOPICS = {
    "daemon": "The daemon",
    "pool": "Pools",
    "generation": "Generations",
    "worker": "Workers",
    "operation": _EVENTS_OPERATIONS.format(kinds=", ".join(f"`{kind.value}`" for kind in Kind)),
}

_EVENTS_FIELDS = """
## Fields

| field | type | meaning |
|---|---|---|
| `actor` | text | the user that gave the order |
| `cause` | text | how the process ended: {causes} |
| `desired`, `serving`, `workers` | integer | numbers of workers |
| `file` | text | the path of a file |
| `generation`, `former` | text | a generation, `web@3` |
| `kind`, `state` | text | of the operation |
| `op` | integer | the number of the operation |
| `pool` | text | the name of a pool |
| `request` | text | method and path of a request |
| `worker` | text | a worker, `web/3#17` |
"""


class Page(NamedTuple):
    name: str
    text: str


def pages() -> list[Page]:
    return [
        Page("settings.md", settings_page()),
        Page("srvd.md", "\n".join([_MADE, *_command_lines(app.cli, "srvd")]) + "\n"),
        Page("srvctl.md", "\n".join([_MADE, *_command_lines(ctl.cli, "srvctl")]) + "\n"),
        Page("exit-codes.md", exit_codes_page()),
        Page("access-log.md", access_log_page()),
        Page("hooks.md", hooks_page()),
        Page("events.md", events_page()),
        Page("wire.md", filled((REFERENCE / "wire.md").read_text())),
    ]


def events_page() -> str:
    lines = [_EVENTS_HEAD.rstrip()]
    for topic, title in _EVENTS_TOPICS.items():
        lines += [
            title.rstrip() if "##" in title else f"\n## {title}",
            "",
            "| event | level | | fields | viewer |",
            "|---|---|---|---|---|",
        ]
        for name, about in EVENTS.items():
            if name.topic == topic:
                shown = name.value.replace("operation.", "KIND.")
                fields = ", ".join(f"`{field}`" for field in about.fields.split())
                viewer = "without quoted words" if about.quotes else ""
                lines.append(f"| `{shown}` | {about.level.value} | {about.meaning} | {fields} | {viewer} |")
    causes = ", ".join(f"`{cause.value}`" for cause in Cause if cause is not Cause.ZYGOTE)
    return "\n".join([*lines, _EVENTS_FIELDS.format(causes=causes)])


def settings_page() -> str:
    lines = [_SETTINGS_HEAD.rstrip()]
    names = {pair: variable for variable, pair in variables().items()}
    for title, about, table, place, example in _TABLES:
        lines += ["", f"## {title}", "", about, ""]
        if example:
            lines += ["```toml", example, "```", ""]
        lines += ["| key | | takes | default | flag, variable |", "|---|---|---|---|---|"]
        scope = title.strip("[]").split(".")[0]
        for name, setting in declared(table).items():
            if setting.table == place:
                variable = names.get(("daemon" if table is DaemonSettings else scope, name), "")
                lines.append(_setting_row(name, setting, table._field_defaults[name], variable))
    return "\n".join(lines) + "\n"


def _setting_row(name: str, setting: Setting, default: object, variable: str) -> str:
    ways = ", ".join(f"`{way}`" for way in (setting.flag, variable) if way)
    shown = values.show(setting.kind, default)
    about = setting.help + ("; its values are never shown" if setting.secret else "")
    return f"| `{name}` | {about} | {values.describe(setting.kind)} | `{shown}` | {ways} |"


def exit_codes_page() -> str:
    lines = [_EXIT_HEAD.rstrip()]
    for program in dict.fromkeys(program for program, _, _ in EXIT.MEANINGS):
        lines += ["", f"## {program}", "", "| code | meaning |", "|---|---|"]
        lines += [f"| {code} | {meaning} |" for other, code, meaning in EXIT.MEANINGS if other == program]
    return "\n".join(lines) + "\n"


def access_log_page() -> str:
    lines = [_ACCESS_HEAD.rstrip(), "", "## Named formats", "", "| name | is |", "|---|---|"]
    lines += [f"| {name} | {f'`{text}`' if text else 'one JSON object'} |" for name, text in PRESETS.items()]
    lines += ["", "## Atoms", "", "| atom | meaning |", "|---|---|"]
    lines += [f"| `%({atom})s` | {meaning} |" for atom, meaning in ATOMS.items()]
    lines += ["", "A percent sign is written `%%`. What is not there is `-`."]
    return "\n".join(lines) + "\n"


def hooks_page() -> str:
    lines = [_HOOKS_HEAD.rstrip(), "", "| hook | |", "|---|---|"]
    lines += [f"| `{name}({arguments})` | {meaning} |" for name, (arguments, meaning) in ABOUT.items()]
    lines += ["", "`worker` is a name such as `web/3#17`, `environ` that of the request, `seconds` a float."]
    return "\n".join(lines) + "\n"


def _command_lines(group: click.Group, program: str) -> Iterator[str]:
    """Each command with its usage, its help and its options, from the declarations that `--help` uses as well."""
    context = click.Context(group, info_name=program)
    yield f"# {program}"
    yield from _described(group, context)
    for words, command, inner in _walk(group, context):
        yield from ("", f"## {program} {words}")
        role = next((entry.role for entry in COMMANDS if " ".join(entry.words) == words), "")
        if program == "srvctl" and role:
            yield from ("", f"For the role {role} and above.")
        yield from _described(command, inner)


def _walk(group: click.Group, context: click.Context) -> Iterator[tuple[str, click.Command, click.Context]]:
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None or command.hidden:
            continue
        inner = click.Context(command, info_name=name, parent=context)
        words = inner.command_path.partition(" ")[2]
        if isinstance(command, click.Group):
            yield from _walk(command, inner)
        else:
            yield words, command, inner


def _described(command: click.Command, context: click.Context) -> Iterator[str]:
    # Not command.get_help: how it is laid out changes with click's version, and these pages must not.
    pieces = [_argument(param) for param in command.params if isinstance(param, click.Argument)]
    if isinstance(command, click.Group):
        pieces = ["COMMAND", "…"]
    yield from ("", "```text", " ".join([context.command_path, "[OPTIONS]", *pieces]), "```")
    for paragraph in cleandoc(command.help or "").split("\n\n"):
        yield ""
        if paragraph.startswith("\b\n"):  # click's mark for lines that are not to be joined
            head, *lines = paragraph.removeprefix("\b\n").split("\n")
            if head.endswith(":") and not head.startswith(" "):
                yield from (head, "")
            else:
                lines.insert(0, head)
            yield from ("```sh", *cleandoc("\n".join(lines)).split("\n"), "```")
        else:
            yield paragraph
    known = [param for param in command.params if isinstance(param, click.Option) and not param.hidden]
    if known:
        yield from ("", "| option | |", "|---|---|")
    for option in known:
        metavar = "" if option.is_flag else f" {option.metavar or (option.name or '').upper()}"
        *others, last = sorted(option.opts, key=len)
        spelled = ", ".join(f"`{way}`" for way in (*others, last + metavar)).replace("|", "\\|")
        yield f"| {spelled} | {(option.help or '').rstrip('.')} |"


def _argument(param: click.Argument) -> str:
    text = (param.metavar or param.name or "").strip("[]").upper()
    return text if param.required else f"[{text}]"


# -- the tables of the control protocol, within a page that is written by hand ---------------------------------------

_REGION = re.compile(r"(<!-- made by docs/generate.py: (\w+) -->\n).*?(<!-- end -->\n)", re.DOTALL)


def filled(text: str) -> str:
    """The page with its tables as the declarations have them."""
    return _REGION.sub(lambda found: found[1] + "\n".join(_WIRE[found[2]]()) + "\n" + found[3], text)


def _bounds() -> Iterator[str]:
    yield from ("| bound | of a request | of an answer |", "|---|---|---|")
    for about, one, two in (
        ("bytes of the map", REQUESTS.frame, RESPONSES.frame),
        ("bytes of a text", REQUESTS.text, RESPONSES.text),
        ("keys of a map", REQUESTS.keys, RESPONSES.keys),
        ("items of a list", REQUESTS.items, RESPONSES.items),
        ("maps and lists inside each other", DEPTH, DEPTH),
    ):
        yield f"| {about} | {one} | {two} |"


def _limits() -> Iterator[str]:
    bounds = Limits()
    yield from ("| bound | |", "|---|---|")
    yield f"| connections in all | {bounds.connections}, of which {bounds.reserved} are for admins |"
    yield f"| connections of one user | {bounds.per_uid} |"
    yield f"| requests of one connection that wait for an operation | {bounds.waits} |"
    yield f"| from the first byte of a frame to its last | {bounds.frame:g} s |"
    yield f"| without a request, unless one waits or watches | {bounds.idle:g} s |"
    yield f"| without reading what was sent | {bounds.stall:g} s |"


def _versions() -> Iterator[str]:
    yield f"The protocol is {PROTOCOL}. The `schema` of results is {SCHEMA}; fields are added without a new number."


def _methods() -> Iterator[str]:
    yield from ("| method | role | arguments | answers |", "|---|---|---|---|")
    for entry in COMMANDS:
        arguments = ", ".join(
            f"`{field.name}` {field.kind}" + (" (required)" if field.required else "") for field in entry.fields
        )
        kind = "when done" if entry.changes else "then events" if entry.streams else "at once"
        if entry.takes_time or entry.name == "op.wait":
            kind = "later"
        yield f"| `{entry.name}` | {entry.role} | {arguments or '–'} | {kind} |"


def _codes() -> Iterator[str]:
    yield from ("| code | may succeed later | exit code |", "|---|---|---|")
    for code, problem in CODES.items():
        if problem is not NoDaemon:  # which a client finds out by itself
            yield f"| `{code}` | {'yes' if problem.retryable else 'no'} | {problem.exit_code} |"


_WIRE = {"bounds": _bounds, "limits": _limits, "versions": _versions, "methods": _methods, "codes": _codes}


# -- the picture of the layers ----------------------------------------------------------------------------------------

_BOX, _GAP, _ROW = (86, 34), 36, 84
_LEFT = 24
_FONT = 'font-family="sans-serif" font-size="12"'
_COLOURS = {"PURE": "#d5e8d4", "PROCESS": "#dae8fc", "LIBRARY": "#fff2cc", "": "#f5f5f5"}
_LEGEND = (("PURE", "pure"), ("PROCESS", "a process"), ("LIBRARY", "a library"), ("", "other"))
_EVERYWHERE = 4
"""So many parts and more import it: it stands in the ground row, and no arrow leads there."""
_FREE = 2
"""Rows from the ground that are filled in the order of the table."""


class Part(NamedTuple):
    kind: str  # a key of _COLOURS
    below: frozenset[str]  # parts that it may import


def parts() -> dict[str, Part]:
    """The rows of the table of layers, by the name in the first column."""
    found = {}
    for line in ARCHITECTURE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 4 and cells[0].startswith("`"):
            below = {name.strip().partition(".")[0] for name in cells[2].split(",")} - {"–", ""}
            kind = cells[1].partition(" ")[0]
            found[cells[0].strip("`/").removesuffix(".py")] = Part(kind if kind in _COLOURS else "", frozenset(below))
    return found


def layers_picture() -> str:
    """An SVG: a part stands above all parts that it imports; arrows that follow from others are left out."""
    table = parts()
    users = {name: sum(name in part.below for part in table.values()) for name in table}
    ground = [name for name, part in table.items() if not part.below and users[name] >= _EVERYWHERE]
    arrows = {name: part.below - set(ground) - _reached(table, part.below) for name, part in table.items()}
    rows = [ground]
    left = [name for name in table if name not in ground]
    while left:
        row = [name for name in left if not table[name].below & set(left) - {name}]
        left = [name for name in left if name not in row]
        rows.append(row)
    places = _places(rows, {name: part.below - set(ground) for name, part in table.items()})
    width = max(x for x, _ in places.values()) + _BOX[0] + _LEFT
    height = (len(rows) + 1) * _ROW
    band = places[ground[0]][1] - 14
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" {_FONT}>',
        _MADE.strip(),
        "<title>The layers of src/srvd: lines lead down from a part to the parts that it imports</title>",
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<rect x="4" y="{band}" width="{width - 8}" height="62" fill="none" stroke="#999" stroke-dasharray="4"/>',
    ]
    for name in table:
        lines += [_arrow(places[name], places[other]) for other in sorted(arrows[name])]
    lines += [_box(name, *places[name], _COLOURS[table[name].kind]) for name in table]
    for number, (kind, about) in enumerate(_LEGEND):
        lines.append(_box(about, _LEFT + number * (_BOX[0] + _GAP), height - _ROW + 20, _COLOURS[kind]))
    return "\n".join([*lines, "</svg>"]) + "\n"


def _places(rows: list[list[str]], below: dict[str, frozenset[str]]) -> dict[str, tuple[int, int]]:
    """Left upper corners of the boxes: each above the middle of what it imports, as far as its row has room."""
    step = _BOX[0] + _GAP
    places: dict[str, tuple[int, int]] = {}
    for level, row in enumerate(rows, 1):
        wanted = {}
        for column, name in enumerate(row):
            lower = [places[other][0] for other in below[name] if other in places]
            wanted[name] = sum(lower) // len(lower) if lower and level > _FREE else _LEFT + column * step
        at = _LEFT
        for name in sorted(row, key=lambda name: wanted[name]):
            at = max(at, wanted[name])
            places[name] = (at, (len(rows) - level) * _ROW + _LEFT // 2)
            at += step
    return places


def _reached(table: dict[str, Part], names: frozenset[str]) -> frozenset[str]:
    """The parts that these parts import, and those that they import in turn."""
    found: frozenset[str] = frozenset()
    for name in names:
        found |= table[name].below | _reached(table, table[name].below)
    return found


def _box(text: str, x: int, y: int, colour: str) -> str:
    rect = f'<rect x="{x}" y="{y}" width="{_BOX[0]}" height="{_BOX[1]}" rx="4" fill="{colour}" stroke="#666"/>'
    return f'{rect}<text x="{x + _BOX[0] // 2}" y="{y + 21}" text-anchor="middle">{text}</text>'


def _arrow(upper: tuple[int, int], lower: tuple[int, int]) -> str:
    x1, y1, x2, y2 = upper[0] + _BOX[0] // 2, upper[1] + _BOX[1], lower[0] + _BOX[0] // 2, lower[1]
    line = f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="#888"/>'
    return line + f'<circle cx="{x2}" cy="{y2}" r="3" fill="#888"/>'


# -- the pictures of the two lives -------------------------------------------------------------------------------------

_LIFE_ROW = 78
_WORKER_PLACES = {
    Phase.ASKED: (0, 0), Phase.BOOTING: (1, 0), Phase.STANDBY: (2, 0), Phase.OPENING: (3, 0), Phase.SERVING: (4, 0),
    Phase.CANCELLED: (0, 2), Phase.KILLED: (1, 2), Phase.DRAINING: (4, 2), Phase.GONE: (2, 3),
}  # fmt: skip
_GENERATION_PLACES = {
    Stage.LOADING: (0, 0), Stage.BOOTING: (1, 0), Stage.PROBING: (2, 0), Stage.WARMING: (3, 0), Stage.STAGING: (4, 0),
    Stage.FAILED: (1, 2), Stage.PARKED: (3, 2), Stage.ACTIVE: (4, 2), Stage.RETIRING: (4, 3), Stage.GONE: (2, 3),
}  # fmt: skip
_ARROW_HEAD = (
    '<defs><marker id="end" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
    '<path d="M0 0 L8 4 L0 8 z" fill="#666"/></marker></defs>'
)
_EVERYWHERE_POSSIBLE = {WorkerTrigger.KILL, WorkerTrigger.EXITED}
_EXPECTED = {(phase, WorkerTrigger.EXITED) for phase in (Phase.DRAINING, Phase.KILLED)}
"""Kills and deaths are possible in nearly every phase: drawn are those that are expected."""


def life_picture(title: str, table: Mapping[Any, Any], places: Mapping[Any, tuple[int, int]]) -> str:
    """An SVG of a table of `lifecycle.py`: a line for each pair of states, with the triggers that lead along it."""
    ways: dict[tuple[Enum, Enum], list[str]] = {}
    for (state, trigger), after in table.items():
        shown = trigger not in _EVERYWHERE_POSSIBLE or (state, trigger) in _EXPECTED
        if shown and isinstance(after, type(state)) and after is not state:
            ways.setdefault((state, after), []).append(trigger.value)
    across = 178
    at = {state: (_LEFT + x * across, _LEFT + y * _LIFE_ROW) for state, (x, y) in places.items()}
    width = max(x for x, _ in at.values()) + _BOX[0] + _LEFT
    height = max(y for _, y in at.values()) + _BOX[1] + _LEFT
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" {_FONT}>',
        _MADE.strip(),
        f"<title>{title}</title>",
        _ARROW_HEAD,
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    lines += [_way(at[one], at[other], ", ".join(triggers)) for (one, other), triggers in ways.items()]
    lines += [_box(state.value, *place, "#f5f5f5") for state, place in at.items()]
    return "\n".join([*lines, "</svg>"]) + "\n"


def _way(one: tuple[int, int], other: tuple[int, int], text: str) -> str:
    """An arrow from box to box, along the shorter side, with its triggers beside its middle."""
    (x1, y1), (x2, y2), (wide, high) = one, other, _BOX
    below = 0
    if y1 == y2:
        below = 8 if x1 > x2 else -8  # there and back are two lines
        x1, x2 = (x1 + wide, x2) if x1 < x2 else (x1, x2 + wide)
        y1 = y2 = y1 + high // 2 + below
    else:
        x1, x2 = x1 + wide // 2, x2 + wide // 2
        y1, y2 = (y1 + high, y2) if y1 < y2 else (y1, y2 + high)
    line = f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="#888" marker-end="url(#end)"/>'
    place = f'x="{(x1 + x2) // 2}" y="{(y1 + y2) // 2 + (12 if below > 0 else -4)}" text-anchor="middle" font-size="10"'
    return f'{line}<text {place} stroke="white" stroke-width="3" paint-order="stroke">{text}</text>'


def pictures() -> dict[Path, str]:
    lives = (
        ("The life of a worker", WORKER, _WORKER_PLACES),
        ("The life of a generation", GENERATION, _GENERATION_PLACES),
    )
    worker, generation = (life_picture(*life) for life in lives)
    folder = PICTURE.parent
    return {
        PICTURE: layers_picture(),
        folder / "worker-life.svg": worker,
        folder / "generation-life.svg": generation,
    }


def files() -> dict[Path, str]:
    """Everything that is made, with its text."""
    return {REFERENCE / page.name: page.text for page in pages()} | pictures()


def main() -> int:
    stale = {path: text for path, text in files().items() if not path.exists() or path.read_text() != text}
    for path, text in stale.items():
        shown = path.relative_to(DOCS.parent)
        if "--check" in sys.argv[1:]:
            print(f"{shown} is not current: run python docs/generate.py")  # noqa: T201 — it is a script
            continue
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        print(f"wrote {shown}")  # noqa: T201 — it is a script
    return 1 if stale and "--check" in sys.argv[1:] else 0


if __name__ == "__main__":
    sys.exit(main())
