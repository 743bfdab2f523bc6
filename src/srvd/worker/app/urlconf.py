"""Resolves Django's URLconf while the application is loaded, so that all views are imported by then.

Django itself imports the views at the first request of each worker: a broken view would pass the load, and each worker
would import the files as they are on disk at that moment. Does nothing for other applications, and uses only names that
Django documents.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

__all__ = ["resolve"]

_HANDLER = "django.core.handlers.wsgi"
"""Imported by `get_wsgi_application`, and not by programs that use Django only as a library."""

_ERRORS = (400, 403, 404, 500)


def resolve() -> None:
    """Imports the module that ROOT_URLCONF names, and the modules it includes. Raises what these modules raise."""
    if _HANDLER not in sys.modules:
        return
    settings: Any = importlib.import_module("django.conf").settings
    if not settings.configured or not getattr(settings, "ROOT_URLCONF", ""):  # a middleware may choose one
        return
    root: Any = importlib.import_module("django.urls").get_resolver()
    _descend(root, set())
    for code in _ERRORS:
        root.resolve_error_handler(code)


def _descend(resolver: Any, seen: set[int]) -> None:
    if id(resolver) in seen:  # a URLconf may include itself
        return
    seen.add(id(resolver))
    for pattern in resolver.url_patterns:
        if hasattr(type(pattern), "url_patterns"):  # of the type: asking the object imports, and hides errors
            _descend(pattern, seen)
