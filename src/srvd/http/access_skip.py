"""Rules for requests that have no line in the access log: by path, status and method.

Writes nothing. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

__all__ = ["compile_rules", "explain_rule"]

_STATUS = re.compile(r"[1-5](?:[0-9]{2}|xx)")
_METHOD = re.compile(r"[A-Z]{3,20}")


def explain_rule(text: str) -> str:
    """Returns why this is no rule; "" if it is one."""
    words = text.split()
    kinds = ["path" if word[0] == "/" else "status" if _STATUS.fullmatch(word) else "method" for word in words]
    wrong = [word for word, kind in zip(words, kinds, strict=True) if kind == "method" and not _METHOD.fullmatch(word)]
    if wrong:
        return f"{wrong[0]!r} is no path, status or method"
    if not words or len(set(kinds)) < len(kinds):
        return "a rule has at most one path, one status and one method"
    return ""


def compile_rules(texts: Sequence[str]) -> Callable[[str, str, int], bool]:
    """Returns a function of method, path and status that tells whether a rule fits all three. Raises `ValueError`."""
    patterns = []
    for text in texts:
        problem = explain_rule(text)
        if problem:
            raise ValueError(problem)
        method, path, status = "[^ ]*", ".*", "..."
        for word in text.split():
            if word[0] == "/":
                path = re.escape(word).replace(r"\*", ".*")
            elif _STATUS.fullmatch(word):
                status = word.replace("x", ".")
            else:
                method = word
        patterns.append(f"(?:{status} {method} {path})")
    fits = re.compile("|".join(patterns), re.DOTALL).fullmatch
    return lambda method, path, status: fits(f"{status} {method} {path}") is not None
