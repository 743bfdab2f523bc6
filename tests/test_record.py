"""Records beside `typing.NamedTuple`: whatever the one can do, the other does the same."""

from __future__ import annotations

import copy
import pickle
from typing import Any, NamedTuple

import pytest

from srvd.record import Record


class Point(NamedTuple):
    """A point."""

    x: int
    y: int = 2
    name: str = "p"

    @property
    def total(self) -> int:
        return self.x + self.y


Named = Point


class Point(Record):  # type: ignore[no-redef]  # the same name, for the same repr
    """A point."""

    x: int
    y: int = 2
    name: str = "p"

    @property
    def total(self) -> int:
        return self.x + self.y


BOTH = pytest.mark.parametrize("cls", [Named, Point], ids=["NamedTuple", "Record"])


@BOTH
def test_values_come_in_order_by_name_and_by_default(cls: Any) -> None:
    assert cls(1) == cls(x=1) == cls(1, 2, "p") == cls(1, name="p") == (1, 2, "p")
    assert cls(1, name="q") == (1, 2, "q")


@BOTH
@pytest.mark.parametrize(
    ("values", "named"),
    [((), {}), ((1, 2, "p", 4), {}), ((1,), {"x": 1}), ((1,), {"z": 1}), ((), {"y": 1})],
    ids=["none", "too many", "twice", "unknown", "one is missing"],
)
def test_any_other_set_of_values_is_a_type_error(cls: Any, values: tuple[Any, ...], named: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        cls(*values, **named)


@BOTH
def test_what_named_tuples_offer(cls: Any) -> None:
    point = cls(1)
    x, *rest = point
    assert (point.x, point.y, point.name, point[1], x, rest, point.total) == (1, 2, "p", 2, 1, [2, "p"], 3)
    assert repr(point) == "Point(x=1, y=2, name='p')"
    assert point._asdict() == {"x": 1, "y": 2, "name": "p"}
    assert point._replace(y=5) == (1, 5, "p")
    assert type(point._replace(y=5)) is cls
    assert cls._make([4, 5, "r"]) == (4, 5, "r")
    assert cls._fields == cls.__match_args__ == ("x", "y", "name")
    assert cls._field_defaults == {"y": 2, "name": "p"}
    assert cls.__doc__ == "A point."
    assert hash(point) == hash((1, 2, "p"))
    assert point < cls(2)
    assert type(copy.copy(point)) is type(copy.deepcopy(point)) is cls
    match point:
        case cls(1, name=name):
            assert name == "p"
        case _:
            pytest.fail("no match")


@BOTH
def test_what_named_tuples_refuse(cls: Any) -> None:
    point = cls(1)
    with pytest.raises(AttributeError):
        point.x = 5
    with pytest.raises(AttributeError):
        point.other = 5
    with pytest.raises((TypeError, ValueError), match="other"):  # a TypeError since Python 3.13
        point._replace(other=1)
    with pytest.raises(TypeError):
        cls._make([1, 2])


def test_records_survive_a_pickle() -> None:
    point = Point(1)
    again = pickle.loads(pickle.dumps(point))
    assert again == point
    assert type(again) is Point


def test_a_record_of_no_fields_is_empty() -> None:
    class Nothing(Record):
        """Nothing to say."""

    assert Nothing() == ()
    assert repr(Nothing()) == "Nothing()"
    with pytest.raises(TypeError):
        Nothing(1)  # type: ignore[call-arg]
