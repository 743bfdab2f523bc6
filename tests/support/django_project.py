"""A Django project as `startproject` makes it, with one page: its views are imported at the first request, not with
the load.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["SETTINGS", "VIEWS", "shop"]

SETTINGS = """
SECRET_KEY = "for the tests alone"
DEBUG = False
ALLOWED_HOSTS = ["shop.example"]
ROOT_URLCONF = "shop.urls"
WSGI_APPLICATION = "shop.wsgi.application"
MIDDLEWARE = ["django.middleware.security.SecurityMiddleware", "django.middleware.common.CommonMiddleware"]
"""

VIEWS = """
import os
from django.http import HttpResponse
def hello(request):
    return HttpResponse(f"hello {release} from {{os.getpid()}}\\n")
"""

_URLS = """
from django.urls import path
from . import views
urlpatterns = [path("", views.hello)]
"""

_WSGI = """
import os
from django.core.wsgi import get_wsgi_application
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
application = get_wsgi_application()
"""


def shop(folder: Path, *more: str, views: str = VIEWS.format(release="v1")) -> None:
    """Puts the project into the folder; `more` are lines of its settings."""
    package = folder / "shop"
    package.mkdir(exist_ok=True)
    files = {
        "__init__.py": "",
        "settings.py": "\n".join((SETTINGS, *more)),
        "views.py": views,
        "urls.py": _URLS,
        "wsgi.py": _WSGI,
    }
    for name, text in files.items():
        (package / name).write_text(text)
