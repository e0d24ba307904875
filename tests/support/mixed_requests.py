"""Valid and invalid requests of every kind; each checks its answer."""

from __future__ import annotations

import contextlib
import copy
import csv
import functools
import gzip
import io
import json
import socket
import struct
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

import httpx
import numpy as np
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from senoscope_client.wire.messages import StartHeader, encode
from support import classify_requests as classify
from support import inference_requests as inference
from support import miniature as mini
from support.bad_messages import BAD_MESSAGES
from support.raw_http import (
    HANDSHAKE,
    NO_CHANGES,
    NO_HANDSHAKES,
    UPGRADE,
    handshake_refused,
    problem,
    raw,
    read_all,
    trickle,
)
from support.raw_microscope import Microscope
from support.servers import Server
from support.web_pages import PAGES

UNKNOWN = "0197c9a0-0000-7000-8000-000000000000"
Verdicts = list[tuple[str, float]]


class Sender:
    """The HTTP client of one thread; its connections are reused, unless a request closes them.

    Attributes
    ----------
    retried : int
        Number of answers with the status 503.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self.retried = 0
        # Shorter than the idle timeout of the service: no connection is used while it is being closed.
        self.http = httpx.Client(
            base_url=server.url, timeout=120, limits=httpx.Limits(keepalive_expiry=2), trust_env=False
        )

    def classify(self, body: bytes, media_type: str = "application/x-npy", **more: Any) -> httpx.Response:
        return self.http.post("/v1/classify", content=body, headers={"Content-Type": media_type}, **more)

    def until_taken(self, ask: Callable[[Sender], httpx.Response]) -> httpx.Response:
        """Repeat a request while the batch lane is full, after the times that the service returns."""
        while (answer := ask(self)).status_code == 503:
            self.retried += 1
            assert "try again" in answer.text, answer.text
            time.sleep(int(answer.headers["Retry-After"]))
        return answer

    def href(self, pixels: np.ndarray) -> str:
        """Classify a field of view, and return the path of its Grad-CAM picture."""
        answer = self.until_taken(lambda sender: sender.classify(classify.npy(pixels)))
        return answer.json()["results"][0]["gradcam"]["href"]


@dataclass(frozen=True)
class Kind:
    """One kind of request.

    Attributes
    ----------
    send : callable
        Sends a request, checks its answer, and returns its kind, for example ``422 invalid_request``.
    """

    name: str
    send: Callable[[Sender, Random], str]


# -- valid requests

FOVS = np.stack([mini.bright(), mini.dark()] * 2) + np.random.default_rng(5).integers(
    0, 50, (4, 3, 250, 300), dtype=np.uint16
)


def _verdicts(answer: httpx.Response) -> Verdicts:
    """Return label and probability of each FOV, from an answer in any format."""
    if answer.headers["content-type"].startswith("text/csv"):
        rows = csv.DictReader(io.StringIO(answer.text))
        return [(row["label"], float(row["probability"])) for row in rows]
    length = int(answer.headers.get("inference-header-content-length", len(answer.content)))
    content = json.loads(answer.content[:length])
    if "results" in content:
        return [(result["label"], result["probability"]) for result in content["results"]]
    by_name = {output["name"]: output for output in content["outputs"]}
    probabilities = by_name["probability"].get("data")
    if probabilities is None:  # the only binary output
        probabilities = np.frombuffer(answer.content[length:], "<f4").tolist()
    return list(zip(by_name["label"]["data"], probabilities, strict=True))


@dataclass
class Good:
    """A valid request; its answer must always equal the one that it gets without other load."""

    name: str
    ask: Callable[[Sender], httpx.Response]
    labels: list[str]
    alone: Verdicts = field(default_factory=list)

    def learn(self, sender: Sender) -> None:
        self.alone = _verdicts(self._served(sender))
        assert [label for label, _ in self.alone] == self.labels, self.name

    def send(self, sender: Sender, _: Random) -> str:
        verdicts = _verdicts(self._served(sender))
        assert [label for label, _ in verdicts] == self.labels
        np.testing.assert_allclose([p for _, p in verdicts], [p for _, p in self.alone], rtol=0, atol=1e-6)
        return "200"

    def _served(self, sender: Sender) -> httpx.Response:
        answer = sender.until_taken(self.ask)
        assert answer.status_code == 200, answer.text[:500]
        return answer


def _infer(pixels: np.ndarray, **whole: object) -> Callable[[Sender], httpx.Response]:
    body, headers = inference.request(pixels, **whole)
    return lambda sender: sender.http.post(inference.INFER, content=body, headers=headers)


def good() -> list[Good]:
    turns = classify.BY_TURNS
    made = [
        Good(f"classify, {name}", functools.partial(_post, body), turns[: 1 if name == "planar" else 4])
        for name, body in classify.containers(FOVS).items()
    ]
    body = classify.npy(FOVS)
    stack = classify.npy(np.concatenate([FOVS] * 6))
    one = classify.npy(FOVS[1])
    packed = gzip.compress(inference.request(FOVS)[0])
    packed_head = {"Content-Encoding": "gzip", **inference.request(FOVS)[1]}
    form = classify.form(body, b"a.npy")
    by_json = {"binary_data_output": False}
    binary = [{"name": "label"}, {"name": "probability", "parameters": {"binary_data": True}}]
    return [
        *made,
        Good("classify, one FOV", lambda s: s.classify(one), turns[1:2]),
        Good("classify, 24 FOVs", lambda s: s.classify(stack), turns * 6),
        Good("classify, form", lambda s: s.http.post("/v1/classify", **form), turns),
        Good("classify, grids", lambda s: s.classify(body, params={"cam": "grid"}), turns),
        Good("classify, pictures", lambda s: s.classify(body, params={"cam": "png"}), turns),
        Good("classify, axes", lambda s: s.classify(body, params={"axes": "TCYX"}), turns),
        Good(
            "classify, CSV",
            lambda s: s.http.post("/v1/classify", content=body, headers={"Accept": "text/csv"}),
            turns,
        ),
        Good("classify, slow and steady", lambda s: s.classify(_steadily(one)), turns[1:2]),  # type: ignore[arg-type]
        Good("infer", _infer(FOVS, _parameters=by_json), turns),
        Good("infer, float32", _infer(FOVS.astype(np.float32)), turns),
        Good("infer, binary output", _infer(FOVS, _outputs=binary), turns),
        Good(
            "infer, gzip", lambda s: s.http.post(inference.INFER, content=packed, headers=packed_head), turns
        ),
    ]


def _post(body: bytes, sender: Sender) -> httpx.Response:
    return sender.classify(body, "application/octet-stream")


def _steadily(body: bytes) -> Iterator[bytes]:
    for start in range(0, len(body), 65536):
        time.sleep(0.05)
        yield body[start : start + 65536]


def _pages(sender: Sender, rng: Random) -> str:
    """Request what dashboards request regularly."""
    page = rng.choice(
        (
            "/livez",
            "/readyz",
            "/v1/model",
            "/v1/stream",
            "/v1/results?limit=5",
            "/v1/series",
            "/metrics",
            "/v2",
        )
    )
    answer = sender.http.get(page)
    assert answer.status_code == 200, answer.text
    return "200"


def _picture(sender: Sender, _: Random) -> str:
    answer = sender.http.get(sender.href(FOVS[0]))
    assert (answer.status_code, answer.content[:4]) == (200, b"\x89PNG")
    return "200"


# -- invalid requests


def check_problem(answer: httpx.Response, status: int, code: str) -> str:
    """Check a problem document, and return its status and code."""
    assert answer.status_code == status, (answer.status_code, answer.text[:500])
    if answer.request.method != "HEAD":
        document = answer.json()
        assert answer.headers["content-type"] == "application/problem+json"
        assert (document["status"], document["code"]) == (status, code), document
        assert document["title"]
        assert document["detail"]
        assert "Traceback" not in answer.text
    return f"{status} {code}"


def _check_inference_error(answer: httpx.Response, status: int, says: str) -> str:
    assert answer.status_code == status, (answer.status_code, answer.text[:500])
    assert answer.headers["content-type"] == "application/json"
    assert set(answer.json()) == {"error"}
    assert says in answer.json()["error"]
    return f"{status} inference error"


def _bad(name: str, status: int, code: str, method: str, path: str, **more: Any) -> Kind:
    """Return a request that is always refused in the same way; ``content`` may be a callable."""
    content = more.pop("content", b"")
    made = functools.cache(content) if callable(content) else lambda: content

    def send(sender: Sender, _: Random) -> str:
        answer = sender.until_taken(lambda sender: sender.http.request(method, path, content=made(), **more))
        return check_problem(answer, status, code)

    return Kind(name, send)


def _bad_inference(bad: inference.Bad) -> Kind:
    made = functools.cache(bad.make)

    def send(sender: Sender, _: Random) -> str:
        body, headers = made()
        answer = sender.until_taken(lambda sender: sender.http.post(bad.path, content=body, headers=headers))
        return _check_inference_error(answer, bad.status, bad.says)

    return Kind(f"infer: {bad.name}", send)


def _bad_picture(path: str, params: dict[str, str], status: int, code: str) -> Kind:
    def send(sender: Sender, _: Random) -> str:
        address = path.format(href=sender.href(FOVS[1]))
        return check_problem(sender.http.get(address, params=params), status, code)

    return Kind(f"picture: {path} {params}", send)


_ADDRESSES = [
    ("GET", "/v1/live", 404, "not_found"),
    ("GET", "/v1//classify", 404, "not_found"),
    ("GET", "/%00", 404, "not_found"),
    ("GET", "/static/..%2f..%2fetc/passwd", 404, "not_found"),
    ("HEAD", "/v1/classify", 405, "method_not_allowed"),
    ("TRACE", "/livez", 405, "method_not_allowed"),
    ("PROPFIND", "/v1/classify", 405, "method_not_allowed"),
    ("POST", "/livez", 405, "method_not_allowed"),
    ("GET", "/v1/results?limit=0", 422, "invalid_request"),
    ("GET", "/v1/results?cursor=-1", 422, "invalid_request"),
    ("GET", "/v1/results?from=yesterday", 422, "invalid_request"),
    ("GET", "/v1/results?min_probability=nan", 422, "invalid_request"),
    ("GET", "/v1/results?label=%00", 422, "invalid_request"),
    ("GET", "/v1/results?unknown=1", 422, "invalid_request"),
    ("GET", "/v1/results/export?format=xls", 422, "invalid_request"),
    ("GET", "/v1/results/nonsense", 422, "invalid_request"),
    ("GET", f"/v1/results/{UNKNOWN}", 404, "not_found"),
    ("GET", "/v1/series?limit=x", 422, "invalid_request"),
    ("GET", f"/v1/series/{UNKNOWN}", 404, "not_found"),
    ("GET", f"/v1/series/{UNKNOWN}/map.json", 404, "not_found"),
    ("GET", f"/v1/series/{UNKNOWN}/map.json?layer=x", 404, "not_found"),
    ("GET", "/v1/decisions?limit=0", 422, "invalid_request"),
    ("POST", "/v1/normalization/calibrate?frames=-1", 422, "invalid_request"),
]
_MEDIA_TYPES = ("text/html", "application/json", "video/mp4", "image/jpeg", "a" * 1000)


def _noise(sender: Sender, rng: Random) -> str:
    """Send random bytes, declared as an image."""
    kind = rng.choice(("image/tiff", "application/x-npy"))
    answer = sender.classify(b"\0" + rng.randbytes(rng.randrange(100_000)), kind)
    return check_problem(answer, 422, "unreadable_image")


def _undeclared_noise(sender: Sender, rng: Random) -> str:
    answer = sender.classify(b"\0" + rng.randbytes(rng.randrange(100_000)), "application/octet-stream")
    return check_problem(answer, 415, "unsupported_media_type")


@functools.cache
def _containers() -> list[bytes]:
    return list(classify.containers(FOVS).values())


def _cut_image(sender: Sender, rng: Random) -> str:
    body = rng.choice(_containers())
    media_type = "application/x-npy" if body.startswith(b"\x93") else "image/tiff"
    return check_problem(
        sender.classify(body[: rng.randrange(1, len(body) // 2)], media_type), 422, "unreadable_image"
    )


def _lost_directory(sender: Sender, rng: Random) -> str:
    """Send a TIFF whose first directory is beyond its end."""
    body = bytearray(classify.tiff(FOVS[0], metadata={"axes": "CYX"}))
    body[4:8] = struct.pack("<I", len(body) + rng.randrange(1 << 20))
    return check_problem(sender.classify(bytes(body), "image/tiff"), 422, "unreadable_image")


def _damaged_image(sender: Sender, rng: Random) -> str:
    """Send an image with changed bytes, mostly at its beginning; it may be accepted or refused."""
    body = bytearray(rng.choice(_containers()))
    for _ in range(rng.randrange(1, 20)):
        body[rng.randrange(rng.choice((400, len(body))))] = rng.randrange(256)
    answer = sender.until_taken(lambda sender: sender.classify(bytes(body), "application/octet-stream"))
    if answer.status_code == 200:
        assert len(answer.json()["results"]) == answer.json()["count"] > 0
        return "200"
    assert answer.status_code in {413, 415, 422}, (answer.status_code, answer.text[:500])
    return check_problem(answer, answer.status_code, answer.json()["code"])


def _too_large(path: str, *, declared: bool) -> Callable[[Sender, Random], str]:
    def send(sender: Sender, _: Random) -> str:
        headers = {"Content-Length": str(300 << 20)} if declared else {}

        def post(sender: Sender) -> httpx.Response:
            return sender.http.post(path, content=(bytes(1 << 20) for _ in range(300)), headers=headers)

        answer = sender.until_taken(post)  # a full lane is reported before the body is read
        if path == "/v1/classify":
            return check_problem(answer, 413, "payload_too_large")
        return _check_inference_error(answer, 413, "--max-upload-mib")

    return send


# -- invalid requests that need a raw socket

_HEAD = b"POST /v1/classify HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/tiff\r\n"
_FORM = b"POST /v1/classify HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
_INFER = f"POST {inference.INFER} HTTP/1.1\r\nHost: localhost\r\n".encode()
_NO_HTTP = {
    "negative length": _HEAD + b"Content-Length: -1\r\n\r\n",
    "two lengths": _HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcde",
    "endless length": _HEAD + b"Content-Length: " + b"9" * 40 + b"\r\n\r\n",
    "unknown coding": _HEAD + b"Transfer-Encoding: gzip\r\n\r\n",
    "bad chunk size": _HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n",
    "chunk without end": _HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nabcdefgh\r\n0\r\n\r\n",
    "no host": b"GET /livez HTTP/1.1\r\n\r\n",
    "byte in the address": b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "zero in a header": b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: a\0b\r\n\r\n",
}


def _raw_problem(sent: bytes, status: int, code: str) -> Callable[[Sender, Random], str]:
    def send(sender: Sender, _: Random) -> str:
        with raw(sender.server) as connection:
            connection.sendall(sent)
            assert problem(read_all(connection)) == (status, code)
        return f"{status} {code}"

    return send


def _refused_handshake(sent: bytes) -> Callable[[Sender, Random], str]:
    def send(sender: Sender, _: Random) -> str:
        with raw(sender.server) as connection:
            connection.sendall(sent)
            assert handshake_refused(read_all(connection))
        return "handshake refused"

    return send


def _raw_noise(sender: Sender, rng: Random) -> str:
    return _raw_problem(b"\0" + rng.randbytes(rng.randrange(10_000)) + b"\r\n\r\n", 400, "bad_request")(
        sender, rng
    )


def _slow(begin: bytes, piece: bytes, status: int, code: str) -> Callable[[Sender, Random], str]:
    """Send a request too slowly: a piece now and then, or nothing after its beginning."""

    def send(sender: Sender, _: Random) -> str:
        with raw(sender.server) as connection:
            connection.sendall(begin)
            if piece:
                trickle(connection, piece)
            assert problem(read_all(connection)) == (status, code)
        return f"{status} {code}"

    return send


def _reset(connection: socket.socket) -> None:
    """Close a connection with a reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def _gone_while_sending(head: bytes) -> Callable[[Sender, Random], str]:
    def send(sender: Sender, rng: Random) -> str:
        body = rng.choice(_containers())
        connection = raw(sender.server)
        connection.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body))
        connection.sendall(body[: rng.randrange(len(body))])
        time.sleep(rng.choice((0, 0.05)))
        _reset(connection) if rng.random() < 0.5 else connection.close()
        return "disconnected"

    return send


def _gone_while_answered(sender: Sender, rng: Random) -> str:
    """Send a whole request, and disconnect before or during the answer."""
    body = classify.npy(FOVS)
    connection = raw(sender.server)
    connection.sendall(_HEAD.replace(b"classify ", b"classify?cam=png ").replace(b"tiff", b"x"))
    connection.sendall(b"Content-Length: %d\r\n\r\n" % len(body) + body)
    wanted = rng.choice((0, 1, 200))
    while wanted > 0:
        wanted -= len(connection.recv(wanted))
    _reset(connection) if rng.random() < 0.5 else connection.close()
    return "disconnected"


def _half_closed(sender: Sender, rng: Random) -> str:
    """Close the sending side in the middle of a body, and wait."""
    with raw(sender.server) as connection:
        connection.sendall(_HEAD + b"Content-Length: 99\r\n\r\n" + rng.randbytes(20))
        connection.shutdown(socket.SHUT_WR)
        assert read_all(connection) == b""
    return "disconnected"


def _closed_with(code: int, message: str | None, params: str = "") -> Callable[[Sender, Random], str]:
    def send(sender: Sender, _: Random) -> str:
        with connect(sender.server.ws + params, max_queue=None) as live:
            if message is not None:
                live.send(message)
            with contextlib.suppress(ConnectionClosed):
                while True:
                    live.recv(timeout=60)
            assert live.close_code == code
        return f"closed {code}"

    return send


def _broken_frame(sender: Sender, _: Random) -> str:
    """Send an invalid WebSocket frame right after the handshake."""
    with connect(sender.server.ws, max_queue=None) as live:
        live.socket.sendall(b"\xff" * 100)
        with contextlib.suppress(ConnectionClosed):
            while True:
                live.recv(timeout=60)
        assert live.close_code == 1002
    return "closed 1002"


def _gone_live(sender: Sender, _: Random) -> str:
    connection = raw(sender.server)
    connection.sendall(UPGRADE.replace(b"live", b"live?cam=png") + HANDSHAKE)
    assert connection.recv(12) == b"HTTP/1.1 101"
    _reset(connection)
    return "disconnected"


def bad() -> list[Kind]:
    """Return every kind of invalid request over HTTP and WebSocket."""
    return [
        *(
            _bad(
                f"classify: {one.name}",
                one.status,
                one.code,
                "POST",
                "/v1/classify",
                content=one.make,
                params=dict(one.params),
                headers={"Content-Type": one.media_type},
            )
            for one in classify.BAD
        ),
        *(_bad_inference(one) for one in inference.BAD),
        *(
            _bad(
                f"model: {'a long list' if callable(body) else repr(body[:30])}",
                status,
                code,
                "POST",
                "/v1/model",
                content=body,
                headers={"Content-Type": kind},
            )
            for body, kind, status, code in NO_CHANGES
        ),
        *(
            _bad(f"{method} {path}", status, code, method, path)
            for method, path, status, code in (*classify.WRONG_ADDRESSES, *_ADDRESSES)
        ),
        *(_bad_picture(*one) for one in classify.BAD_PICTURES),
        *(
            _bad(f"page: {headers}", status, "forbidden", "GET", "/v1/model", headers=headers)
            for headers, status in PAGES
            if status == 403
        ),
        *(
            _bad(
                f"classify: {kind[:20]}",
                415,
                "unsupported_media_type",
                "POST",
                "/v1/classify",
                content=b"nonsense" * 100,
                headers={"Content-Type": kind},
            )
            for kind in _MEDIA_TYPES
        ),
        Kind("classify: random bytes", _noise),
        Kind("classify: random bytes of no kind", _undeclared_noise),
        Kind("classify: image cut anywhere", _cut_image),
        Kind("classify: directory beyond the end", _lost_directory),
        Kind("classify: image damaged anywhere", _damaged_image),
        Kind("classify: too large", _too_large("/v1/classify", declared=True)),
        Kind("classify: too large, undeclared", _too_large("/v1/classify", declared=False)),
        Kind("infer: too large", _too_large(inference.INFER, declared=True)),
        Kind("infer: too large, undeclared", _too_large(inference.INFER, declared=False)),
        *(Kind(f"HTTP: {name}", _raw_problem(sent, 400, "bad_request")) for name, sent in _NO_HTTP.items()),
        *(Kind(f"HTTP: {name}", _refused_handshake(sent)) for name, sent in NO_HANDSHAKES.items()),
        Kind("HTTP: random bytes", _raw_noise),
        Kind(
            "HTTP: huge head",
            _raw_problem(b"GET /livez HTTP/1.1\r\nX: " + b"a" * 40_000, 431, "header_too_large"),
        ),
        Kind("slow: nothing sent", _slow(b"", b"", 408, "request_timeout")),
        Kind("slow: head trickles", _slow(b"GET /livez HTTP/1.1\r\n", b"X-A: b\r\n", 408, "request_timeout")),
        Kind(
            "slow: body trickles",
            _slow(_HEAD + b"Content-Length: 99999\r\n\r\n", b"a", 408, "request_timeout"),
        ),
        Kind(
            "slow: form stops",
            _slow(_FORM + b"Content-Length: 99999\r\n\r\n--x\r\n", b"", 408, "request_timeout"),
        ),
        Kind(
            "slow: refused form trickles",
            _slow(
                _FORM.replace(b"; boundary=x", b"") + b"Content-Length: 99999\r\n\r\n",
                b"a",
                422,
                "invalid_request",
            ),
        ),
        Kind("disconnects: while it sends an image", _gone_while_sending(_HEAD)),
        Kind("disconnects: while it sends a form", _gone_while_sending(_FORM)),
        Kind("disconnects: while it sends tensors", _gone_while_sending(_INFER)),
        Kind("disconnects: during the answer", _gone_while_answered),
        Kind("disconnects: half", _half_closed),
        Kind("disconnects: live", _gone_live),
        Kind("live: unknown parameter", _closed_with(1008, None, "?cam=gif")),
        Kind("live: message too large", _closed_with(1009, "a" * 100_000)),
        Kind("live: broken frame", _broken_frame),
        Kind(
            "live: nowhere",
            _raw_problem(UPGRADE.replace(b"live", b"nowhere") + HANDSHAKE, 404, "not_found"),
        ),
    ]


class Stream:
    """Valid and invalid frames for the stream; all senders use one socket.

    Attributes
    ----------
    frames : int
        Valid frames sent.
    wrong : Counter of str
        Invalid frames sent, by the reason that the service must count.
    """

    def __init__(self, scope: Microscope) -> None:
        self._scope = scope
        self._lock = threading.Lock()
        self.frames = 0
        self.wrong: Counter[str] = Counter()

    def kinds(self) -> list[Kind]:
        return [
            Kind(f"stream: {reason}, {n}", functools.partial(self._send_wrong, reason, make))
            for n, (reason, make) in enumerate(BAD_MESSAGES)
        ]

    def send(self, _: Sender, __: Random) -> str:
        with self._lock:
            self._scope.send(self._scope.frame(self.frames, FOVS[self.frames % 4]))
            self.frames += 1
        return "sent"

    def _send_wrong(self, reason: str, make: Callable[[Microscope], list], _: Sender, __: Random) -> str:
        with self._lock:
            other = copy.copy(self._scope)
            other.uid = uuid.uuid4()  # in the current series they would be repeated frames
            if reason == "series_of_another_instrument":  # only for known series
                other.send(encode(StartHeader(**other.common())))
            other.send(make(other))
            self.wrong[reason] += 1
        return f"sent {reason}"


def usual(stream: Stream, served: list[Good]) -> list[Kind]:
    """Return every kind of valid request."""
    return [
        *(Kind(one.name, one.send) for one in served),
        Kind("pages", _pages),
        Kind("picture", _picture),
        Kind("frame of the stream", stream.send),
    ]


def deck(kinds: list[Kind], rng: Random) -> Iterator[Kind]:
    """Yield all kinds in random order, again and again."""
    while True:
        yield from rng.sample(kinds, len(kinds))


def mixed(usual: Iterator[Kind], unusual: Iterator[Kind], count: int, rng: Random) -> list[Kind]:
    """Return the next ``count`` of both in random order, half of them unusual."""
    order = [next(usual if n % 2 else unusual) for n in range(count)]
    rng.shuffle(order)
    return order
