"""What frameworks leave to their own development servers: folders of templates, and Django's static files.

Imports no framework that the application has not loaded.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable
from typing import Any

__all__ = ["template_folders", "with_static_files"]


def template_folders(app: object) -> set[str]:
    """Returns the folders whose templates the application keeps once they are loaded: those of Django and of Flask."""
    found: set[str] = set()
    try:
        if _django() is not None:
            autoreload = importlib.import_module("django.template.autoreload")
            found.update(str(folder) for folder in autoreload.get_template_directories())
        for part in (app, *getattr(app, "blueprints", {}).values()):
            found.update(map(str, _folders_of(getattr(part, "jinja_loader", None))))
    except Exception:  # noqa: S110 - an application of another shape; its templates can be named in reload_extra
        pass
    return found


def _folders_of(loader: object) -> Iterable[object]:
    return getattr(loader, "searchpath", ())


def with_static_files(app: Any) -> Any:
    """Returns the application with Django's static files in front, as `runserver` has them: with DEBUG, and if
    django.contrib.staticfiles is installed.
    """
    settings = _django()
    if settings is None or not settings.DEBUG or "django.contrib.staticfiles" not in settings.INSTALLED_APPS:
        return app
    handlers = importlib.import_module("django.contrib.staticfiles.handlers")
    kind = f"{type(app).__module__}.{type(app).__qualname__}"
    if kind == "django.core.handlers.wsgi.WSGIHandler":
        return handlers.StaticFilesHandler(app)
    return handlers.ASGIStaticFilesHandler(app) if kind == "django.core.handlers.asgi.ASGIHandler" else app


def _django() -> Any:
    """Returns Django's settings, if the application has configured them; else None."""
    conf = sys.modules.get("django.conf")
    settings = getattr(conf, "settings", None)
    return settings if settings is not None and settings.configured else None
