"""Claims about the tree of errors: one class for each code, and the core's names for them are the same."""

from __future__ import annotations

import pytest

from srvd.core.model import ErrorCode, Fault
from srvd.core.status.view import fault_map
from srvd.errors import CODES, SrvdError, from_wire


def test_the_codes_of_the_core_are_those_of_the_tree() -> None:
    assert [code.value for code in ErrorCode] == list(CODES)


def test_each_class_has_a_code_of_its_own() -> None:
    classes = [one for one in SrvdError.__subclasses__() if one.__module__ == SrvdError.__module__]
    assert {problem.code: problem for problem in classes} == CODES
    assert len({problem.code for problem in classes}) == len(classes)


@pytest.mark.parametrize("code", ErrorCode)
def test_a_fault_becomes_the_error_of_its_code(code: ErrorCode) -> None:
    told = fault_map(Fault(code, "what failed", "what to try", "probe"))
    assert told is not None
    problem = from_wire(told)
    assert type(problem) is CODES[code.value]
    assert (problem.message, problem.hint, problem.detail) == ("what failed", "what to try", {"step": "probe"})
    assert told["retryable"] is (code is ErrorCode.BUSY)
