"""Valid and invalid requests to ``/v2``, with the expected answers."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import httpx
import numpy as np

from support.servers import Server

MODEL = "miniature"


INFER = f"/v2/models/{MODEL}/infer"


DATATYPES = {"UINT8": np.uint8, "UINT16": np.uint16, "FP32": np.float32}


def request(
    pixels: np.ndarray | bytes = b"", header_length: int | str | None = None, **changes: object
) -> tuple[bytes, dict[str, str]]:
    """Return a binary request; ``changes`` apply to the input or, with an underscore, to the request."""
    if isinstance(pixels, np.ndarray):
        datatype = next(name for name, dtype in DATATYPES.items() if dtype == pixels.dtype)
        tensor = pixels.tobytes()
        described: dict[str, object] = {"shape": list(pixels.shape), "datatype": datatype}
    else:
        tensor = pixels
        described = {"shape": [1, 3, 250, 300], "datatype": "UINT8"}
    described |= {"name": "image", "parameters": {"binary_data_size": len(tensor)}}
    described |= {key: value for key, value in changes.items() if not key.startswith("_")}
    whole = {"inputs": [{key: value for key, value in described.items() if value is not None}]}
    whole |= {key[1:]: value for key, value in changes.items() if key.startswith("_")}
    text = json.dumps(whole).encode()
    length = len(text) if header_length is None else header_length
    return text + tensor, {"Inference-Header-Content-Length": str(length)}


def post(
    server: Server, body: bytes, headers: dict[str, str] | None = None, path: str = INFER
) -> httpx.Response:
    return httpx.post(server.url + path, content=body, headers=headers, timeout=60)


def as_json(data: object, **changes: object) -> tuple[bytes, dict[str, str]]:
    """Return a request with pixels in JSON."""
    given = {"name": "image", "shape": [1, 3, 250, 300], "datatype": "FP32", "data": data, **changes}
    return json.dumps({"inputs": [given]}).encode(), {}


FOV = np.zeros((1, 3, 250, 300), np.uint8)


PIXELS = FOV.tobytes()


COUNT = FOV.size


def _with_nan() -> np.ndarray:
    pixels = FOV.astype(np.float32)
    pixels[0, 1, 2, 3] = np.nan
    return pixels


def _packed(coding: str, pack: Callable[[bytes], bytes], body: bytes) -> tuple[bytes, dict[str, str]]:
    return pack(body), {"Content-Encoding": coding}


@dataclass(frozen=True)
class Bad:
    name: str
    make: Callable[[], tuple[bytes, dict[str, str]]]
    says: str
    status: int = 400
    path: str = INFER


BAD = [
    Bad("empty body", lambda: (b"", {}), "not JSON"),
    Bad("not JSON", lambda: (b"nonsense", {}), "not JSON"),
    Bad("not UTF-8", lambda: (b"\xff\xfe", {}), "not JSON"),
    Bad("deep JSON", lambda: (b"[" * 100_000, {}), "nested too deeply"),
    Bad("endless integer", lambda: (b"1" * 10_000, {}), "not JSON"),
    Bad("JSON of another kind", lambda: (b"[]", {}), "not a valid inference request"),
    Bad("no inputs", lambda: (b"{}", {}), "inputs"),
    Bad("empty inputs", lambda: (b'{"inputs": []}', {}), "given 0 times"),
    Bad("a million wrong outputs", lambda: request(PIXELS, _outputs=[0] * 1_000_000), "outputs"),
    Bad("binary without its header", lambda: (request(PIXELS)[0], {}), "not JSON"),
    Bad("header not a number", lambda: request(PIXELS, header_length="ten"), "number of bytes"),
    Bad("header negative", lambda: request(PIXELS, header_length=-1), "number of bytes"),
    Bad("header endless", lambda: request(PIXELS, header_length="9" * 5000), "number of bytes"),
    Bad("header beyond the body", lambda: request(PIXELS, header_length=10**9), "only"),
    Bad("header too short", lambda: request(PIXELS, header_length=20), "not JSON"),
    Bad("unknown input", lambda: request(PIXELS, name="picture"), "input 'picture' is unknown"),
    Bad("surrogate as input", lambda: request(PIXELS, name="\ud800"), "is unknown"),
    Bad(
        "input twice", lambda: request(b"", _inputs=[json.loads(as_json([])[0])["inputs"][0]] * 2), "2 times"
    ),
    Bad("unknown output", lambda: request(PIXELS, _outputs=[{"name": "mask"}]), "output 'mask' is unknown"),
    Bad("output twice", lambda: request(PIXELS, _outputs=[{"name": "label"}] * 2), "requested twice"),
    Bad("unknown datatype", lambda: request(PIXELS, datatype="INT16"), "UINT8"),
    Bad("datatype missing", lambda: request(PIXELS, datatype=None), "datatype"),
    Bad("wrong datatype for the bytes", lambda: request(PIXELS, datatype="FP32"), "900000 bytes"),
    Bad("shape without batch", lambda: request(PIXELS, shape=[3, 250, 300]), "[N, 3, 250, 300]"),
    Bad("four channels", lambda: request(PIXELS, shape=[1, 4, 250, 300]), "SRS, TPEF, Transmission"),
    Bad("other size", lambda: request(PIXELS, shape=[1, 3, 300, 250]), "[N, 3, 250, 300]"),
    Bad("batch of zero", lambda: request(b"", shape=[0, 3, 250, 300]), "at least 1"),
    Bad("negative batch", lambda: request(PIXELS, shape=[-1, 3, 250, 300]), "[-1, 3, 250, 300]"),
    Bad("fractional batch", lambda: request(PIXELS, shape=[1.5, 3, 250, 300]), "shape.0"),
    Bad("text as batch", lambda: request(PIXELS, shape=["1", 3, 250, 300]), "shape.0"),
    Bad("too many FOVs", lambda: request(PIXELS, shape=[513, 3, 250, 300]), "at most 512", 413),
    Bad("huge batch", lambda: request(PIXELS, shape=[10**30, 3, 250, 300]), "at most 512", 413),
    Bad("huge frame", lambda: request(PIXELS, shape=[1, 3, 10**18, 10**18]), "[N, 3, 250, 300]"),
    Bad("a million dimensions", lambda: request(PIXELS, shape=[1] * 1_000_000), "shape"),
    Bad(
        "too few bytes", lambda: request(PIXELS[:-1], parameters={"binary_data_size": COUNT}), "224999 bytes"
    ),
    Bad("too many bytes", lambda: request(PIXELS + b"0", parameters={"binary_data_size": COUNT}), "225001"),
    Bad("wrong byte count", lambda: request(PIXELS, parameters={"binary_data_size": 5}), "binary_data_size"),
    Bad("text byte count", lambda: request(PIXELS, parameters={"binary_data_size": "225000"}), "binary_data"),
    Bad("undeclared bytes", lambda: request(PIXELS, parameters=None), "follow the JSON"),
    Bad("data twice", lambda: request(PIXELS, data=[0] * COUNT), "both"),
    Bad("shared memory", lambda: request(b"", parameters={"shared_memory_region": "a"}), "not supported"),
    Bad("NaN", lambda: request(_with_nan()), "field of view 0, channel TPEF"),
    Bad("NaN in JSON", lambda: as_json([float("nan")] * COUNT), "NaN"),
    Bad("more than float32 holds", lambda: as_json([1e300] * COUNT), "infinite"),
    Bad("more than float64 holds", lambda: as_json([10**400] + [0] * (COUNT - 1)), "no datatype can hold"),
    Bad("no data", lambda: as_json(None), "neither data"),
    Bad("text as data", lambda: as_json("0" * COUNT), "neither data"),
    Bad("too few values", lambda: as_json([0]), "1 values"),
    Bad("strings", lambda: as_json(["0"] * COUNT), "not numbers"),
    Bad("nulls", lambda: as_json([None] * COUNT), "not numbers"),
    Bad("booleans", lambda: as_json([True] * COUNT), "not numbers"),
    Bad("list among numbers", lambda: as_json([0] * (COUNT - 1) + [[0]]), "not a number"),
    Bad("ragged", lambda: as_json([[[[0] * 300] * 250] * 2]), "nesting of data"),
    Bad("half nested", lambda: as_json([[0] * COUNT]), "nesting of data"),
    Bad("256 as UINT8", lambda: as_json([256] * COUNT, datatype="UINT8"), "not a valid uint8"),
    Bad("-1 as UINT16", lambda: as_json([-1] * COUNT, datatype="UINT16"), "not a valid uint16"),
    Bad("0.5 as UINT16", lambda: as_json([0.5] * COUNT, datatype="UINT16"), "not a valid uint16"),
    Bad(
        "infinity as UINT8",
        lambda: as_json([float("inf")] + [0] * (COUNT - 1), datatype="UINT8"),
        "not a valid uint8",
    ),
    Bad("empty lists", lambda: (b'{"inputs": [' + b"[]," * 4_000_000 + b"0]}", {}), "more lists"),
    Bad("empty objects", lambda: (b'{"inputs": [' + b"{}," * 4_000_000 + b"0]}", {}), "not numbers"),
    Bad("empty strings", lambda: (b'{"inputs": [' + b'"",' * 4_000_000 + b"0]}", {}), "not numbers"),
    Bad(
        "a million keys",
        lambda: (b"{" + b",".join(b'"%07x":0' % n for n in range(1_000_000)) + b"}", {}),
        "not numbers",
    ),
    Bad("an endless string", lambda: (b'{"id":"' + rb"\u0041" * 2_000_000 + b'"}', {}), "not numbers"),
    Bad("an endless number", lambda: (b'{"inputs": [1.' + b"1" * 8_000_000 + b"]}", {}), "digits"),
    Bad("20 MiB of JSON", lambda: (b'{"inputs": [' + b"[]," * 7_000_000, {}), "binary data", 413),
    Bad(
        "raw bytes, no whole FOV", lambda: (PIXELS, {"Inference-Header-Content-Length": "0"}), "900000 bytes"
    ),
    Bad(
        "flag not a boolean",
        lambda: request(PIXELS, _parameters={"binary_data_output": "yes"}),
        "true or false",
    ),
    Bad("parameters not an object", lambda: request(PIXELS, _parameters=[1]), "parameters"),
    Bad("id not a string", lambda: request(PIXELS, _id=5), "id"),
    Bad("unknown coding", lambda: _packed("br", bytes, b"{}"), "Content-Encoding 'br'"),
    Bad("two codings", lambda: _packed("gzip, deflate", bytes, b"{}"), "Content-Encoding"),
    Bad("not gzip", lambda: _packed("gzip", bytes, b"{}"), "cannot be decompressed"),
    Bad(
        "incomplete gzip",
        lambda: _packed("gzip", lambda body: gzip.compress(body)[:-9], PIXELS),
        "one complete",
    ),
    Bad(
        "gzip and more",
        lambda: _packed("gzip", lambda body: gzip.compress(body) + b"x", b"{}"),
        "one complete",
    ),
    Bad("gzip as deflate", lambda: _packed("deflate", gzip.compress, b"{}"), "cannot be decompressed"),
    Bad(
        "300 kB that decompress to 300 MB",
        lambda: _packed("gzip", gzip.compress, bytes(300 << 20)),
        "64 MiB",
        413,
    ),
    Bad("the same as deflate", lambda: _packed("deflate", zlib.compress, bytes(300 << 20)), "64 MiB", 413),
    Bad("unknown model", lambda: request(PIXELS), "'other' is not loaded", 404, "/v2/models/other/infer"),
    Bad("odd model", lambda: request(PIXELS), "not loaded", 404, "/v2/models/%ED%A0%80%0A/infer"),
    Bad(
        "unknown version",
        lambda: request(PIXELS),
        "no version '2'",
        404,
        f"/v2/models/{MODEL}/versions/2/infer",
    ),
    Bad("unknown path", lambda: request(PIXELS), "Not Found", 404, f"/v2/models/{MODEL}/explain"),
    Bad("not POST", lambda: request(PIXELS), "Method Not Allowed", 405, f"/v2/models/{MODEL}/config"),
]
