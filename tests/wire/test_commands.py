"""Claims about the declarations of commands, and about the check of every argument of every command."""

from __future__ import annotations

from typing import Any

import pytest

from srvd.errors import BadArgs, UnknownMethod
from srvd.wire.commands import ADMIN, COMMANDS, OPERATOR, ROLES, TOPICS, VIEWER, Command, Field, command, may
from srvd.wire.validate import check

FIELDS = [(entry, field) for entry in COMMANDS for field in entry.fields]
BY_KIND: dict[str, list[Any]] = {
    "flag": [True, False],
    "int": [3],
    "seconds": [0, 1.5, 30],
    "pool": ["web", ""],
    "worker": ["web/3#17", ""],
    "generation": ["web@2", ""],
    "moment": [0, 1.5, 1_800_000_000],
    "topics": [[], ["worker", "pool"]],
}
WRONG: dict[str, list[Any]] = {
    "flag": [0, 1, "true", None, [], {}],
    "int": [True, "3", 3.0, None, [], {}, 1 << 64, -(1 << 63)],
    "seconds": [True, "3", None, [], {}, -0.1, 1e9, float("nan"), float("inf"), 1 << 64],
    "moment": [True, "14:00", None, [], {}, -0.1, 1e12, float("nan"), float("inf"), 1 << 64],
    "pool": [0, True, None, [], {}, "x" * 129, "a\nb", "\x1b[2J"],
    "worker": [0, True, None, [], {}, "x" * 129, "a\x00b"],
    "generation": [0, True, None, [], {}, "x" * 129, "a\x00b"],
    "topics": ["worker", [1], ["nothing"], [None], None, {}, ["worker"] * 6, [["worker"]]],
}


def needed(entry: Command) -> dict[str, Any]:
    """The least valid arguments of a command."""
    if entry.name == "scale":
        return {"size": 3}
    return {field.name: BY_KIND[field.kind][0] for field in entry.fields if field.required}


def named(value: Command | tuple[Command, Field]) -> str:
    return value.name if isinstance(value, Command) else f"{value[0].name}-{value[1].name}"


def test_names_are_unique_and_each_command_is_explained() -> None:
    assert len({entry.name for entry in COMMANDS}) == len({entry.words for entry in COMMANDS}) == len(COMMANDS)
    for entry in COMMANDS:
        assert entry.role in ROLES
        assert entry.examples
        assert entry.summary[0].isupper()
        assert not entry.summary.endswith(".")
        assert all(field.kind in BY_KIND and field.help for field in entry.fields)
        assert entry.changes == (entry.role != VIEWER and entry.name not in ("config", "dump"))


@pytest.mark.parametrize("entry", COMMANDS, ids=named)
def test_the_least_arguments_are_completed_with_defaults(entry: Command) -> None:
    checked = check(entry, needed(entry))
    assert set(checked) == {field.name for field in entry.fields}
    for field in entry.fields:
        if field.name not in needed(entry):
            assert checked[field.name] == (list(field.default) if field.kind == "topics" else field.default)


@pytest.mark.parametrize("place", FIELDS, ids=named)
def test_every_field_takes_its_kind(place: tuple[Command, Field]) -> None:
    entry, field = place
    for value in BY_KIND[field.kind]:
        args = {**needed(entry), field.name: value}
        if entry.name == "scale" and (field.name == "delta" or (field.name == "reset" and value)):
            del args["size"]
        assert check(entry, args)[field.name] == value


@pytest.mark.parametrize("place", FIELDS, ids=named)
def test_every_field_refuses_every_other_type(place: tuple[Command, Field]) -> None:
    entry, field = place
    for value in WRONG[field.kind]:
        with pytest.raises(BadArgs, match=field.name):
            check(entry, {**needed(entry), field.name: value})


@pytest.mark.parametrize("entry", COMMANDS, ids=named)
def test_an_unknown_argument_is_refused_by_name(entry: Command) -> None:
    with pytest.raises(BadArgs, match="unknown argument 'siez'"):
        check(entry, {**needed(entry), "siez": 1})


@pytest.mark.parametrize("entry", [entry for entry in COMMANDS if any(f.required for f in entry.fields)], ids=named)
def test_a_missing_argument_is_refused_by_name(entry: Command) -> None:
    with pytest.raises(BadArgs, match="id is missing"):
        check(entry, {})


@pytest.mark.parametrize("args", [{}, {"size": 1, "delta": 1}, {"size": 1, "reset": True}, {"reset": False}])
def test_scale_takes_exactly_one_of_size_delta_and_reset(args: dict[str, Any]) -> None:
    with pytest.raises(BadArgs, match="exactly one"):
        check(command("scale"), args)


@pytest.mark.parametrize("method", ["recycle", "why"])
def test_a_pool_and_a_worker_together_are_refused(method: str) -> None:
    with pytest.raises(BadArgs, match="a pool and a worker"):
        check(command(method), {"pool": "web", "worker": "web/1#1"})


@pytest.mark.parametrize("value", [-1, 65_537])
def test_a_size_out_of_bounds_is_refused_with_the_bounds(value: int) -> None:
    with pytest.raises(BadArgs, match="0 to 65536 is allowed"):
        check(command("scale"), {"size": value})


def test_defaults_are_not_shared_between_requests() -> None:
    check(command("watch"), {})["topics"].append("worker")
    assert check(command("watch"), {})["topics"] == []


def test_an_unknown_method_is_refused_with_those_there_are() -> None:
    with pytest.raises(UnknownMethod) as refused:
        command("relaod")
    assert "reload" in refused.value.hint


def test_each_role_may_what_the_ones_before_it_may() -> None:
    allowed = [{entry.name for entry in COMMANDS if may(role, entry)} for role in ROLES]
    assert allowed[0] < allowed[1] < allowed[2] == {entry.name for entry in COMMANDS}
    assert not any(may(role, entry) for role in ("", "root") for entry in COMMANDS)
    assert (command("stop").role, command("config").role, command("status").role) == (ADMIN, OPERATOR, VIEWER)


def test_topics_may_all_be_asked_for_at_once() -> None:
    assert check(command("watch"), {"topics": list(TOPICS)})["topics"] == list(TOPICS)
