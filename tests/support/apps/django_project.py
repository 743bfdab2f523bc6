"""A Django project as `django-admin startproject` makes it, with one view: settings, URLconf, views and wsgi apart.

Its views are imported by the URLconf, and nothing else imports that: without srvd's help it is the first request that
does. Written into a folder by tests, release by release.
"""

from __future__ import annotations

from pathlib import Path

SETTINGS = """
SECRET_KEY = "no secret"
ALLOWED_HOSTS = ["localhost", "127.0.0.1"]
ROOT_URLCONF = "shop.urls"
WSGI_APPLICATION = "shop.wsgi.application"
INSTALLED_APPS = []
MIDDLEWARE = ["django.middleware.security.SecurityMiddleware", "django.middleware.common.CommonMiddleware"]
USE_TZ = True
"""

WSGI = """
import os
from django.core.wsgi import get_wsgi_application
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
application = get_wsgi_application()
"""

URLS = """
from django.urls import include, path
urlpatterns = [path("", include("shop.pages"))]
"""

PAGES = """
from django.urls import path
from . import views
urlpatterns = [path("", views.hello), path("late", views.late), path("healthz", views.hello)]
"""

VIEWS = """
import os
from django.http import HttpResponse
RELEASE = {release!r}
def hello(request):
    return HttpResponse("%s %s %d" % (RELEASE, request.environ["srvd.worker"], os.getpid()))
def late(request):
    from . import later
    return HttpResponse("%s %s %d" % (later.RELEASE, request.environ["srvd.worker"], os.getpid()))
"""

BROKEN = "def broken(:\n"


def deploy(folder: Path, release: str, *, broken: bool = False) -> None:
    """Puts a release in place, as `git pull` does; a broken one has a view that is no Python."""
    shop = folder / "shop"
    shop.mkdir(exist_ok=True)
    files = {"__init__": "", "settings": SETTINGS, "wsgi": WSGI, "urls": URLS, "pages": PAGES}
    files |= {"views": VIEWS.format(release=release) + BROKEN * broken, "later": f"RELEASE = {release!r}\n"}
    for name, text in files.items():
        path = shop / f"{name}.py"
        if not path.exists() or path.read_text() != text:  # what did not change stays as it is
            path.with_suffix(".new").write_text(text)
            path.with_suffix(".new").replace(path)
