"""The application of the framework tests in Django, in one module."""

from __future__ import annotations

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse, StreamingHttpResponse
from django.urls import path, re_path
from django.views.decorators.http import require_GET, require_POST
from django.views.static import serve

from tests.support.apps import shared

settings.configure(
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["*"],
    SECRET_KEY="no secret",
    USE_TZ=True,
    LOGGING={
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {"console": {"class": "logging.StreamHandler"}},
        "root": {"handlers": ["console"]},
    },
)


def index(request: HttpRequest) -> HttpResponse:
    return HttpResponse("hello from django", content_type="text/plain")


def hello(request: HttpRequest, name: str) -> HttpResponse:
    return HttpResponse(f"hello {name}", content_type="text/plain; charset=utf-8")


def about(request: HttpRequest) -> HttpResponse:
    query = dict(request.GET.lists())
    return JsonResponse({"url": request.build_absolute_uri(), "query": query, "agent": request.headers["X-Agent"]})


def form(request: HttpRequest) -> HttpResponse:
    return JsonResponse(dict(request.POST.lists()))


def upload(request: HttpRequest) -> HttpResponse:
    file = request.FILES["file"]
    return JsonResponse({"name": file.name, "note": request.POST["note"], **shared.digest(file)})


def raw(request: HttpRequest) -> HttpResponse:
    return JsonResponse(shared.digest(request))


def stream(request: HttpRequest, count: int) -> StreamingHttpResponse:
    return StreamingHttpResponse(shared.blocks(count), content_type="application/octet-stream")


def steps(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(shared.in_two_steps(), content_type="text/plain")


def set_cookies(request: HttpRequest) -> HttpResponse:
    response = HttpResponse("set", content_type="text/plain")
    response.set_cookie("plain", "1", httponly=True, samesite="Lax")
    response.set_cookie("words", "two words; quoted", max_age=60)
    return response


def cookies(request: HttpRequest) -> HttpResponse:
    return JsonResponse(request.COOKIES)


def redirection(request: HttpRequest) -> HttpResponse:
    return HttpResponseRedirect("/hello/there")


def nothing(request: HttpRequest) -> HttpResponse:
    response = HttpResponse(status=204)
    del response["Content-Type"]
    return response


def boom(request: HttpRequest) -> HttpResponse:
    raise RuntimeError(shared.SECRET)


def half(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(shared.cut_short(), content_type="text/plain")


urlpatterns = [
    path("", require_GET(index)),
    path("hello/<str:name>", hello),
    path("request", about),
    path("form", require_POST(form)),
    path("upload", require_POST(upload)),
    path("raw", raw),
    path("stream/<int:count>", stream),
    path("steps", steps),
    path("cookies/set", set_cookies),
    path("cookies", cookies),
    path("redirect", redirection),
    path("nothing", nothing),
    path("boom", boom),
    path("half", half),
    re_path("^static/(?P<path>.*)$", serve, {"document_root": shared.STATIC.absolute()}),
]

app = shared.served(get_wsgi_application())
