"""Routes: OpenAI's HTTP API, FunASR's and OpenAI's WebSockets, the page, and what FunASR's HTTP servers take."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from importlib.resources import files
from time import time
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from paraformer.config import ChunkConfig
from paraformer.errors import AudioError, ParaformerError
from paraformer.recordings import join_segments
from paraformer.serve import openai
from paraformer.serve.doors import Line
from paraformer.serve.engine import Engine, Seat
from paraformer.serve.files import Busy, Spool, TooBig
from paraformer.serve.funasr import FunasrConversation
from paraformer.serve.funasr_settings import Dialect
from paraformer.serve.guard import OWNER, Guard, Keys, Refusal
from paraformer.serve.protocol import Conversation, Done, Failed, News, Sentence
from paraformer.serve.realtime import RealtimeConversation
from paraformer.serve.sockets import SocketWire, converse
from paraformer.types import Transcript

_PAGE = {
    "/": ("index.html", "text/html"),
    "/page.js": ("page.js", "text/javascript"),
    "/worklet.js": ("worklet.js", "text/javascript"),
    "/page.css": ("page.css", "text/css"),
}
_POLICY = "default-src 'self'; connect-src 'self' ws: wss:; img-src 'self' data:; frame-ancestors 'none'"
_CHUNKS = ((5, 10, 5), (8, 8, 4))
"""What FunASR's clients ask for, beside the model's own setting."""
_FIELDS = 64
_FIELD_BYTES = 64 << 10


def app(engine: Engine, keys: Keys) -> Guard:
    """All doors of one process, behind their guard."""
    web = _Web(engine, keys)
    routes = [
        *(Route(path, web.page) for path in _PAGE),
        Route("/health", web.health),
        Route("/v1/audio/transcriptions", web.transcriptions, methods=["POST"]),
        Route("/v1/audio/translations", web.translations, methods=["POST"]),
        Route("/v1/models", web.models),
        Route("/v1/models/{name:path}", web.model),
        Route("/asr", web.asr, methods=["POST"]),
        Route("/recognition", web.recognition, methods=["POST"]),
        WebSocketRoute("/", web.funasr),
        WebSocketRoute("/offline", web.funasr_offline),
        WebSocketRoute("/v1/realtime", web.realtime),
        WebSocketRoute("/{path:path}", web.nowhere),
        Route("/v1/realtime/client_secrets", web.client_secrets, methods=["POST"]),
        Route("/v1/realtime/transcription_sessions", web.transcription_sessions, methods=["POST"]),
    ]
    handlers: dict[Any, Any] = {Refusal: _refused, HTTPException: _missing, Exception: _broken}
    inner = _Counted(Starlette(routes=routes, exception_handlers=handlers), engine)
    return Guard(
        inner, engine.config, keys, engine.quotas.ask, lambda reason: engine.meters.rejected.labels(reason).inc()
    )


class _Web:
    """The handlers, over one engine."""

    def __init__(self, engine: Engine, keys: Keys) -> None:
        self._engine, self._keys = engine, keys
        config, tool = engine.config, engine.recognizer
        own = tool.chunk or ChunkConfig()
        chunks = (own, *(replace(own, left=left, chunk=chunk, right=right) for left, chunk, right in _CHUNKS))
        self._dialect = Dialect(config.mode, config.online_name, chunks)  # type: ignore[arg-type]
        self._offline = Dialect("offline", config.online_name, chunks)
        self._created = int(time())
        self._coming = 0

    # -- HTTP -----------------------------------------------------------------------------------------------------

    async def page(self, request: Request) -> Response:
        """The page, its script and its style."""
        name, kind = _PAGE[request.url.path]
        content = (files("paraformer.serve") / "page" / name).read_bytes()
        headers = {
            "Content-Security-Policy": _POLICY,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-cache",
        }
        return Response(content, media_type=kind, headers=headers)

    async def health(self, _: Request) -> Response:
        """Whether work is taken; cheap."""
        status = "ok" if self._engine.ready else "stopping"
        device, models = self._engine.recognizer.device, [self._engine.model_name]
        return JSONResponse({"status": status, "device": device, "models_loaded": models})

    async def models(self, _: Request) -> Response:
        """Names by which this server's model may be asked for."""
        return JSONResponse({"object": "list", "data": openai.models(self._names, self._created)})

    async def model(self, request: Request) -> Response:
        """One of them."""
        name = request.path_params["name"]
        self._check_model(name)
        return JSONResponse(openai.models([name], self._created)[0])

    async def translations(self, _: Request) -> Response:
        """Not here."""
        raise Refusal(400, "this server transcribes and does not translate", "unsupported")

    async def transcriptions(self, request: Request) -> Response:
        """OpenAI's transcription of an upload."""
        fields, spool = await self._form(request, "file")
        with _closed_if_refused(spool):
            want = openai.asked(fields)
            self._check_model(want.model)
        heard = self._heard(request, spool, want.hotwords, "openai")
        if want.stream:
            first = await anext(heard)
            headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
            return StreamingResponse(_events(first, heard, want), media_type="text/event-stream", headers=headers)
        return Response(openai.answer(await _last(heard), want), media_type=want.content_type)

    async def asr(self, request: Request) -> Response:
        """FunASR's `POST /asr`."""
        fields, spool = await self._form(request, "file")
        with _closed_if_refused(spool):
            words = openai.hotwords(fields)
        began = time()
        transcript = await _last(self._heard(request, spool, words, "funasr"))
        took = time() - began
        return JSONResponse(
            {
                "text": transcript.text,
                "segments": [{"start": s.start_s, "end": s.end_s, "text": s.text} for s in transcript.segments],
                "duration": transcript.duration_s,
                "processing_time": round(took, 3),
                "rtf": round(took / transcript.duration_s, 4) if transcript.duration_s else 0.0,
            }
        )

    async def recognition(self, request: Request) -> Response:
        """FunASR's `POST /recognition`."""
        _, spool = await self._form(request, "audio")
        transcript = await _last(self._heard(request, spool, (), "funasr"))
        sentences = [{"text": s.text, "start": s.start_s, "end": s.end_s} for s in transcript.segments]
        return JSONResponse({"text": transcript.text, "sentences": sentences, "code": 0})

    @property
    def _names(self) -> tuple[str, ...]:
        return (self._engine.model_name, *self._engine.config.aliases)

    def _check_model(self, name: str) -> None:
        if name and name not in self._names:
            raise Refusal(404, f"there is no model {name[:60]!r} here; GET /v1/models lists those that are",
                          "model_not_found", "model")  # fmt: skip

    async def _form(self, request: Request, name: str) -> tuple[list[tuple[str, str]], Spool]:
        """The fields of a form, and its one file as a spool."""
        if not request.headers.get("content-type", "").startswith("multipart/form-data"):
            raise Refusal(415, f"send multipart/form-data with the audio as {name}", None, name)
        announced, most = int(request.headers.get("content-length") or 0), self._engine.config.limits.upload
        if announced > most + _FIELD_BYTES:
            ends = announced > 4 * most  # a little too much is read to its end, so that the client sees why
            raise Refusal(413, f"the file is larger than {most} bytes", "too_large", name, ends=ends)
        if self._coming + self._engine.files.jobs >= self._engine.config.limits.jobs:
            raise Refusal(503, "too many files wait to be recognised; come back later", "busy")
        self._coming += 1
        try:
            async with request.form(max_files=1, max_fields=_FIELDS, max_part_size=_FIELD_BYTES) as form:
                upload = form.get(name)
                if not isinstance(upload, UploadFile):
                    raise Refusal(400, f"the form has no file {name}", "missing_required_parameter", name)
                fields = [(key, value) for key, value in form.multi_items() if isinstance(value, str)]
                return fields, await asyncio.to_thread(self._spooled, upload)
        except ClientDisconnect as error:
            raise Refusal(499, "the client left before all had come") from error
        except OSError as error:
            raise Refusal(503, "there is no room for the file; come back later", "no_room") from error
        except (MultiPartException, HTTPException, ValueError, KeyError) as error:
            wanted = "the form cannot be read: it takes one file and up to 64 short fields"
            raise Refusal(400, wanted, None, name) from error
        finally:
            self._coming -= 1

    def _spooled(self, upload: UploadFile) -> Spool:
        spool = Spool(self._engine.config.limits)
        try:
            while data := upload.file.read(1 << 20):
                spool.append(data)
        except TooBig as error:
            spool.close()
            raise Refusal(413, str(error), "too_large", "file") from error
        except OSError:
            spool.close()
            raise
        return spool

    async def _heard(
        self, request: Request, spool: Spool, hotwords: tuple[str, ...], proto: str
    ) -> AsyncIterator[News]:
        """What is recognised of an upload, as it is; ends with Done. Raises Refusal. Cancelled if the client leaves.

        proto: whose form of it the client speaks, for the meters.
        """
        if not self._engine.ready:
            spool.close()
            raise Refusal(503, "the server is about to stop", "stopping")
        told: asyncio.Queue[News | None] = asyncio.Queue()
        try:
            job = self._engine.submit(spool, None, hotwords, told.put_nowait)
        except Busy as error:
            raise Refusal(503, str(error), "busy") from error
        watch = asyncio.create_task(_until_gone(request, told))
        try:
            while (news := await told.get()) is not None:
                if isinstance(news, Failed):
                    raise _as_refusal(news.error)
                yield news
                if isinstance(news, Done):
                    self._engine.meters.audio.labels(proto).inc(news.transcript.duration_s)
                    self._engine.quotas.hear(request.scope[OWNER], news.transcript.duration_s)
                    return
        finally:
            watch.cancel()
            job.cancel()

    # -- WebSockets -------------------------------------------------------------------------------------------------

    async def funasr(self, socket: WebSocket) -> None:
        """FunASR's protocol, of any mode."""
        await self._serve(socket, lambda: FunasrConversation(self._dialect), "funasr", live=True)

    async def funasr_offline(self, socket: WebSocket) -> None:
        """The same for clients that name no mode and mean offline; takes no place among live streams."""
        await self._serve(socket, lambda: FunasrConversation(self._offline), "funasr", live=False)

    async def realtime(self, socket: WebSocket) -> None:
        """OpenAI's Realtime API; who speaks its beta says so in a header or subprotocol."""
        beta = "openai-beta" in socket.headers or "openai-beta.realtime-v1" in socket.scope.get("subprotocols", ())
        model, longest_s = socket.query_params.get("model", "")[:100], self._engine.config.limits.session_s
        begin = partial(RealtimeConversation, model, beta=beta, longest_s=longest_s)
        await self._serve(socket, begin, "realtime", live=True)

    async def nowhere(self, socket: WebSocket) -> None:
        """No door."""
        doors = "FunASR's clients connect to / or /offline, OpenAI's to /v1/realtime"
        await socket.send_denial_response(_response(Refusal(404, f"there is no WebSocket at this path: {doors}")))

    async def client_secrets(self, request: Request) -> Response:
        """A key for a browser: one connection within a minute."""
        value, until = self._keys.lend(request.scope[OWNER])
        session = {"type": "transcription", "object": "realtime.transcription_session", "id": f"sess_{value[-12:]}"}
        return JSONResponse({"value": value, "expires_at": until, "session": session})

    async def transcription_sessions(self, request: Request) -> Response:
        """The same in the beta's spelling."""
        value, until = self._keys.lend(request.scope[OWNER])
        secret = {"value": value, "expires_at": until}
        session = {"id": f"sess_{value[-12:]}", "object": "realtime.transcription_session", "client_secret": secret}
        return JSONResponse({**session, "input_audio_format": "pcm16", "turn_detection": None})

    async def _serve(self, socket: WebSocket, begin: Callable[[], Conversation], proto: str, *, live: bool) -> None:
        """Find a place, shake hands, and serve to the end."""
        engine, owner = self._engine, socket.scope[OWNER]
        try:
            engine.quotas.sit(owner)
        except Refusal as refusal:
            engine.meters.rejected.labels("quota").inc()
            await socket.send_denial_response(_response(refusal))
            return
        try:
            await self._seated(socket, begin, proto, live=live)
        finally:
            engine.quotas.leave(owner)

    async def _seated(self, socket: WebSocket, begin: Callable[[], Conversation], proto: str, *, live: bool) -> None:
        engine = self._engine
        try:
            seat: Seat | None = engine.sit(proto) if live else None
            if not engine.ready:
                raise Busy("the server is about to stop")
        except Busy as error:
            engine.meters.rejected.labels("busy").inc()
            await socket.send_denial_response(_response(Refusal(503, str(error), "busy")))
            return
        conversation = begin()
        line = Line(engine, conversation, SocketWire(socket), proto, seat)
        try:
            offered = socket.scope.get("subprotocols", ())
            await socket.accept(next((one for one in offered if one in ("binary", "realtime")), None))  # never a key
            await converse(socket, line, conversation, engine)
        finally:
            if seat is not None:
                seat.leave()
            engine.quotas.hear(socket.scope[OWNER], line.audio_s)


@contextmanager
def _closed_if_refused(spool: Spool) -> Iterator[None]:
    """What is refused, in the block, needs its upload no more."""
    try:
        yield
    except Refusal:
        spool.close()
        raise


async def _until_gone(request: Request, told: asyncio.Queue[News | None]) -> None:
    """Put an end to what is told once the client has left."""
    with suppress(Refusal):
        while (await request.receive())["type"] != "http.disconnect":
            pass
    told.put_nowait(None)


async def _last(heard: AsyncIterator[News]) -> Transcript:
    transcript = Transcript("", 0.0, ())
    async for news in heard:
        if isinstance(news, Done):
            transcript = news.transcript
    return transcript


async def _events(first: News, rest: AsyncIterator[News], want: openai.Asked) -> AsyncIterator[str]:
    """Server-sent events: a delta for each segment as it is recognised, then all of it."""
    so_far = ""
    try:
        async for news in _chained(first, rest):
            if isinstance(news, Sentence):
                longer = join_segments([so_far, news.segment.text]) if so_far else news.segment.text
                yield openai.delta(longer[len(so_far) :], news.segment.tokens, want)
                so_far = longer
            elif isinstance(news, Done):
                yield openai.done(news.transcript, want)
    except Refusal as refusal:
        yield openai.failed(refusal)


async def _chained(first: News, rest: AsyncIterator[News]) -> AsyncIterator[News]:
    yield first
    async for news in rest:
        yield news


def _as_refusal(error: ParaformerError) -> Refusal:
    """A file that cannot be used is the client's fault, and would not become better by trying again."""
    if isinstance(error, Busy):
        return Refusal(503, str(error), "busy")
    if isinstance(error, AudioError):
        return Refusal(400, str(error), "invalid_audio", "file")
    return Refusal(400, "the audio could not be recognised", "recognition_failed", "file")


# -- what goes wrong --------------------------------------------------------------------------------------------------


async def _refused(_: Request, refusal: Refusal) -> Response:
    return _response(refusal)


def _response(refusal: Refusal) -> Response:
    return Response(refusal.body(), refusal.status, refusal.headers())


async def _missing(request: Request, error: HTTPException) -> Response:
    """Unknown paths and methods, in OpenAI's shape."""
    refusal = Refusal(error.status_code, f"{request.method} {request.url.path[:100]}: {error.detail}")
    headers = {**refusal.headers(), **(error.headers or {})}
    return Response(refusal.body(), error.status_code, headers)


async def _broken(_: Request, __: Exception) -> Response:
    return _response(Refusal(500, "the server failed on this request"))


class _Counted:
    """Counts requests by route and status."""

    def __init__(self, inner: Any, engine: Engine) -> None:
        self._inner, self._engine = inner, engine

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        status = "499"

        async def sending(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        try:
            await self._inner(scope, receive, sending)
        except Refusal as refusal:
            status = str(refusal.status)
            raise
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self._engine.meters.requests.labels(route, status).inc()
