"""The application: runs in, a FastAPI app out.

**In:** `Models`, the port that the server listens on.
**Out:** the page at ``/``, its files, and ``/v1/...``; the OpenAPI description at
``/openapi.json``. GET changes nothing. Errors are JSON in the shape of OpenAI's.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from lmcli import __version__
from lmcli.errors import LmcliError
from lmcli.web import schemas
from lmcli.web.completions import Completion, CompletionRequest, Completions
from lmcli.web.events import EventStream
from lmcli.web.models import Model, Models
from lmcli.web.security import REPORT_POLICY, Guard, error_json
from lmcli.web.service import Service, colors_css, next_of, score_of
from lmcli.web.workers import BusyError

COMPLETIONS = "/v1/completions"
KINDS = {".js": "text/javascript", ".css": "text/css"}
"""the types of the page's files"""
SAID = {
    400: "The body is no text in UTF-8, or a value of /v1/completions is wrong.",
    403: "The Host or the Origin is not this server.",
    404: "No such run or text.",
    409: "The request does not fit the run or its text.",
    413: "The body is too long.",
    422: "A value is missing, too long, too large or of another kind.",
    503: "Too many requests at once, or too much asked of one: try again.",
}
"""what each status of an error means"""
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": schemas.Error, "description": said} for status, said in SAID.items()
}
JSON_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {
        "description": said,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    }
    for status, said in SAID.items()
}
"""the same where the answer itself is no JSON"""
EVENT = {"type": "object", "properties": {"data": {"type": "string"}}, "required": ["data"]}
EVENTS: dict[str, Any] = {"text/event-stream": {"schema": EVENT}}


def create_app(models: Models, port: int) -> Guard:
    """The guarded application for runs that are open."""
    service = Service(models)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.warm_up()
        yield
        service.close()

    app = FastAPI(
        title="lmcli", version=__version__, description="Your own language models, side by side.",
        docs_url=None, redoc_url=None, lifespan=lifespan,
    )  # fmt: skip
    _handle_errors(app, models)
    _add_page(app, service)
    _add_measures(app, service)
    _add_texts(app, service)
    return Guard(app, port)


def _handle_errors(app: FastAPI, models: Models) -> None:
    """Every error as JSON, without paths."""

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"][1:]) or None
        message = f"{place}: {first['msg']}" if place else str(first["msg"])
        status = 400 if request.url.path == COMPLETIONS else 422  # 400 is what OpenAI answers
        return JSONResponse(error_json(message, status, param=place), status)

    @app.exception_handler(LmcliError)
    async def unfit(request: Request, error: LmcliError) -> JSONResponse:
        said = [error.problem, error.hint]
        for model in models.values():
            said = [model.without_path(part) for part in said]
        return JSONResponse(error_json(said[0], 409, hint=said[1]), 409)

    @app.exception_handler(BusyError)
    async def busy(request: Request, error: BusyError) -> JSONResponse:
        headers = {"retry-after": str(error.retry_after)}
        return JSONResponse(error_json(str(error), 503), 503, headers)

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> JSONResponse:
        code = "model_not_found" if error.status_code == 404 else None
        body = error_json(str(error.detail), error.status_code, code=code)
        return JSONResponse(body, error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def bug(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse(
            error_json("internal error; the terminal of the server has more", 500), 500
        )


def _add_page(app: FastAPI, service: Service) -> None:
    """The page and its files."""
    found = {Path(f.name): f.read_bytes() for f in (files("lmcli.web") / "static").iterdir()}

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return Response(found[Path("index.html")], media_type="text/html; charset=utf-8")

    def serve_file(name: str, content: bytes, kind: str) -> None:
        @app.get(f"/static/{name}", include_in_schema=False)
        async def file() -> Response:
            return Response(content, media_type=f"{kind}; charset=utf-8")

    for file, content in found.items():
        if file.suffix in KINDS:
            serve_file(file.name, content, KINDS[file.suffix])

    @app.get("/static/colors.css", include_in_schema=False)
    async def colors() -> Response:
        return Response(colors_css(), media_type="text/css; charset=utf-8")

    @app.get("/favicon.ico", include_in_schema=False)
    async def icon() -> Response:
        return Response(status_code=204)

    @app.get("/comparison", include_in_schema=False)
    async def comparison() -> Response:
        if service.models.comparison is None:
            raise HTTPException(404, "no comparison is served")
        async with service.figures_lane.request():
            shown = await service.figures_lane.run(partial(getattr, service, "figures"))
        policy = {"content-security-policy": REPORT_POLICY}
        return Response(shown, media_type="text/html; charset=utf-8", headers=policy)

    @app.get("/page.json", include_in_schema=False)
    async def page_data() -> JSONResponse:
        return JSONResponse(service.page())


def _add_measures(app: FastAPI, service: Service) -> None:
    """What is answered at once."""
    post = partial(app.post, responses=ERRORS)

    @app.get("/v1/models", summary="The runs that are served", responses={403: ERRORS[403]})
    async def list_models() -> schemas.ModelList:
        return service.model_list()

    @post("/v1/next", summary="What may come next after a prompt")
    async def next_tokens(body: schemas.NextRequest) -> schemas.NextResponse:
        chosen = _chosen(service.models, body.models)
        async with service.fast.request() as deadline:
            found = []
            for model in chosen:
                reading = await service.read(model, body.prompt, deadline, body.typing)
                found.append(await service.fast.run(partial(next_of, model, reading, body)))
        return schemas.NextResponse(models=found)

    @post("/v1/score", summary="The log-probability of each token of a text")
    async def score(body: schemas.ScoreRequest) -> schemas.ScoreResponse:
        chosen = _chosen(service.models, body.models)
        async with service.fast.request() as deadline:
            found = []
            for model in chosen:
                reading = await service.read(model, body.text, deadline)
                found.append(score_of(model, reading))
        return schemas.ScoreResponse(models=found)

    @post("/v1/cloze", summary="How likely words are in a blank, by the gap before it")
    async def cloze(body: schemas.ClozeRequest) -> schemas.ClozeResponse:
        chosen = _chosen(service.models, body.models)
        if body.filler is not None and body.filler not in service.texts:
            raise HTTPException(404, "no text of that name")
        async with service.slow.request() as deadline:
            return await service.cloze(body, chosen, deadline)

    @post("/v1/inspect", summary="One unit of a gate along a text")
    async def inspect(body: schemas.InspectRequest) -> schemas.InspectResponse:
        (model,) = _chosen(service.models, [body.model])
        async with service.slow.request():
            return await service.slow.run(partial(service.inspect, model, body))


def _add_texts(app: FastAPI, service: Service) -> None:
    """What is streamed."""
    only_events = {**JSON_ERRORS, 200: {"description": "Pieces of texts.", "content": EVENTS}}
    post = partial(app.post, summary="A text of each run, as events", responses=only_events)

    @post("/v1/sample", response_class=EventStream)
    async def sample(body: schemas.SampleRequest) -> EventStream:
        chosen = _chosen(service.models, body.models)
        return await EventStream.begin(service.texts_lane, partial(service.sample, body, chosen))

    also_events = {**ERRORS, 200: {"description": "Texts.", "content": EVENTS}}
    post = partial(app.post, summary="OpenAI's completions", responses=also_events)

    @post(COMPLETIONS, response_model=Completion)
    async def complete(body: CompletionRequest, request: Request) -> Response:
        (model,) = _chosen(service.models, [body.model])
        seed = random.SystemRandom().randrange(2**31) if body.seed is None else body.seed
        await service.open(model)
        made = Completions(body, model, seed, service.texts_lane)
        if body.stream:
            return await EventStream.begin(service.texts_lane, made.events)
        async with service.texts_lane.request() as deadline:
            parts = []
            async for part in made.parts(deadline):
                parts.append(part)
                if await request.is_disconnected():
                    break
        return JSONResponse(made.whole(parts).model_dump())


def _chosen(models: Models, names: Sequence[str] | None) -> list[Model]:
    """Runs by name; the shown ones for None. An unknown name is 404."""
    wanted = list(dict.fromkeys(models.shown if names is None else names))
    for name in wanted:
        if name not in models:
            raise HTTPException(404, "no run of that name is served; /v1/models lists them")
    return [models[name] for name in wanted]
