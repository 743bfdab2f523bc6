"""Whatever the core is told and says can be written as a line and read back."""

from __future__ import annotations

import re
from enum import Enum
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from srvd.core import actions, events
from srvd.core.actions import Action, Note, TellWorker, WorkerCommand
from srvd.core.events import Event, Started, Tick, WorkerGone, WorkerReport, WorkerSaid
from srvd.core.model import Death
from srvd.core.trace import read, spell
from srvd.ids import GenerationId, WorkerId

RECORDS: tuple[type, ...] = (*get_args(Event), *get_args(Action))

NAMES = st.from_regex(re.compile(r"[a-z][a-z0-9_.-]{0,8}", re.ASCII), fullmatch=True)
NUMBERS = st.integers(0, 10**9)


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Any value of the type that a field declares."""
    hint = getattr(hint, "__supertype__", hint)
    origin, args = get_origin(hint), get_args(hint)
    if origin is UnionType:
        return st.one_of([values(kind) for kind in args])
    if origin is tuple:
        if len(args) == 2 and args[1] is Ellipsis:
            return st.lists(values(args[0]), max_size=3).map(tuple)
        return st.tuples(*(values(kind) for kind in args))
    if hint is WorkerId:
        return st.builds(WorkerId, NAMES, NUMBERS, NUMBERS)
    if hint is GenerationId:
        return st.builds(GenerationId, NAMES, NUMBERS)
    simple: dict[type, st.SearchStrategy[Any]] = {
        NoneType: st.none(),
        bool: st.booleans(),
        int: st.integers(-(10**12), 10**12),
        float: st.floats(allow_nan=False, allow_infinity=False),
        str: st.one_of(
            st.text(max_size=20), st.sampled_from(["", "none", "yes", "-1", "0.5", "two words", 'a "b" \\ c'])
        ),
    }
    if hint in simple:
        return simple[hint]
    if issubclass(hint, Enum):
        return st.sampled_from(hint)
    return st.builds(hint, **{name: values(kind) for name, kind in get_type_hints(hint).items()})


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_line_is_read_back_as_what_it_spells(record: type, data: st.DataObject) -> None:
    said = data.draw(values(record))
    line = spell(said)
    back = read(line)
    assert back == said
    assert type(back) is record
    assert spell(back) == line
    assert line.splitlines() == [line], "a line stays one line for everybody"


def test_every_event_and_action_is_one_of_the_two_unions() -> None:
    for module, union in ((events, Event), (actions, Action)):
        defined = {
            thing
            for thing in vars(module).values()
            if isinstance(thing, type) and hasattr(thing, "_fields") and thing.__module__ == module.__name__
        }
        assert defined == set(get_args(union))


def test_what_is_not_said_has_its_default() -> None:
    assert spell(TellWorker(WorkerId("web", 1, 2), WorkerCommand.SERVE)) == "TellWorker worker=web/1#2 told=serve"
    assert spell(Tick()) == "Tick"
    assert read("WorkerGone worker=web/1#2 death=(Death)") == WorkerGone(WorkerId("web", 1, 2), Death())


def test_text_is_quoted_only_where_it_could_be_misread() -> None:
    worker = WorkerId("web", 1, 2)
    assert spell(WorkerSaid(worker, WorkerReport.FAILED, "boom")) == "WorkerSaid worker=web/1#2 word=failed text=boom"
    assert spell(WorkerSaid(worker, WorkerReport.FAILED, "no")) == 'WorkerSaid worker=web/1#2 word=failed text="no"'
    assert spell(WorkerSaid(worker, WorkerReport.FAILED, "a\nb …")).endswith(r'text="a\nb …"')


def test_a_number_in_a_note_stays_a_number_and_its_text_a_text() -> None:
    note = read('Note name=worker.ready text=x fields=[[a, 1], [b, "1"], [c, 1.5], [d, one]]')
    assert isinstance(note, Note)
    assert note.fields == (("a", 1), ("b", "1"), ("c", 1.5), ("d", "one"))
    assert [type(value) for _, value in note.fields] == [int, str, float, str]


def test_a_record_within_a_list_within_a_record_is_read() -> None:
    specs = "[(PoolSpec name=web workers=4), (PoolSpec name=api)]"
    line = f"Started revision=1 specs={specs} actor=(Actor uid=0 pid=1 name=root)"
    started = read(line)
    assert isinstance(started, Started)
    assert [(spec.name, spec.workers) for spec in started.specs] == [("web", 4), ("api", 1)]
    assert spell(started) == line


@pytest.mark.parametrize(
    "line",
    [
        "",
        "Nothing",
        "Tick Tick",
        "Tick worker=web/1#1",
        "WorkerForked worker=web/1#1",
        "WorkerForked pid=7 worker=web",
        "WorkerForked worker=web/1#1 pid=seven",
        "WorkerSaid worker=web/1#1 word=hello",
        "WorkerGone worker=web/1#1 death=(Death exit_code=1",
        "Adopt revisions=[1, 2",
        'WorkerSaid worker=web/1#1 word=failed text="never closed',
        "ZygoteLoaded generation=web preloaded=yes",
        "ZygoteLoaded generation=web@1 preloaded=maybe",
        "read line=x",
        "Phase",
    ],
)
def test_a_line_that_spells_nothing_is_a_value_error(line: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        read(line)


@given(st.text(alphabet='TickWorkerGone worker=web/1#()[],"\\ @', max_size=40))
def test_no_line_is_more_than_a_value_error(line: str) -> None:
    try:
        read(line)
    except ValueError:
        return
