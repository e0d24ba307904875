"""``/v2``: the Open Inference Protocol (KServe v2), with the binary tensor data extension."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from starlette.concurrency import run_in_threadpool

from senoscope import __version__
from senoscope.api.compression import Decompressor, answer_coding, compress_body, content_coding
from senoscope.api.dependencies import Current, Ready
from senoscope.api.middleware.body_limit import receive_body
from senoscope.api.openapi import BINARY, JSON_OBJECT, PROTOCOL_ERRORS, request_body
from senoscope.api.uploads import classify_stack
from senoscope.api.v2.messages import Answer, Inference, decode, encode, json_length_of
from senoscope.api.v2.signature import Signature
from senoscope.api.v2.tensors import padding
from senoscope.scheduling.memory_budget import MemoryShare
from senoscope.service import Service
from senoscope_client.errors import NotFound, NotReady
from senoscope_client.images.reader import Limits

router = APIRouter(prefix="/v2", tags=["Open Inference Protocol"], responses=PROTOCOL_ERRORS)

_TENSORS = JSON_OBJECT | {"application/octet-stream": BINARY}
_JSON_LENGTH = "Inference-Header-Content-Length"


async def _model(request: Request, service: Ready, name: str) -> Signature:
    """Return the ensemble in use, which must be the one that the path names."""
    signature = _active(service)
    if name != signature.name:
        raise NotFound(f"model {name[:80]!r} is not loaded; the loaded model is {signature.name!r}")
    version = request.path_params.get("version", signature.version)
    if version != signature.version:
        raise NotFound(
            f"model {name!r} has no version {version[:80]!r}; version {signature.version!r} is loaded"
        )
    return signature


def _active(service: Service) -> Signature:
    return Signature(service.active, service.settings.max_fovs)


Model = Annotated[Signature, Depends(_model)]


@router.get("")
async def server_metadata() -> dict[str, Any]:
    """Return the name and version of the server, and the extensions of the protocol that it supports."""
    return {
        "name": "senoscope",
        "version": __version__,
        "extensions": ["binary_tensor_data", "model_configuration"],
    }


@router.get("/health/live")
async def server_live() -> dict[str, bool]:
    """Report that the process responds."""
    return {"live": True}


@router.get("/health/ready")
async def server_ready(service: Current) -> dict[str, bool]:
    """Report whether inference is possible, as ``/readyz`` does: 503 with the reason if not."""
    reason = service.not_ready_reason()
    if reason is not None:
        raise NotReady(reason)
    return {"ready": True}


@router.post("/repository/index")
async def repository_index(service: Ready) -> list[dict[str, str]]:
    """List the models: the one that is loaded."""
    model = _active(service)
    return [{"name": model.name, "version": model.version, "state": "READY", "reason": ""}]


@router.get("/models/{name}/versions/{version}", include_in_schema=False)
@router.get("/models/{name}")
async def model_metadata(model: Model) -> dict[str, Any]:
    """Return names, datatypes and shapes of the model's tensors; -1 is the number of fields of view."""
    return model.metadata()


@router.get("/models/{name}/versions/{version}/ready", include_in_schema=False)
@router.get("/models/{name}/ready")
async def model_ready(model: Model) -> dict[str, Any]:
    """Report that the model is ready for inference."""
    return {"name": model.name, "ready": True}


@router.get("/models/{name}/versions/{version}/config", include_in_schema=False)
@router.get("/models/{name}/config")
async def model_config(model: Model) -> dict[str, Any]:
    """Return the model's configuration, in the form of Triton."""
    return model.config()


@router.post("/models/{name}/versions/{version}/infer", include_in_schema=False)
@router.post(
    "/models/{name}/infer",
    response_class=Response,
    responses={200: {"content": _TENSORS}},
    openapi_extra=request_body(_TENSORS),
)
async def infer(request: Request, service: Ready, model: Model) -> Response:
    """Classify the fields of view in the tensor ``image``; the answer is sent when all of them are done."""
    service.scheduler.require_room()  # before a body is read that could not be queued
    with service.request_memory.share() as share:
        inference = await _receive(request, model, service.settings.image_limits, share)
        records = await classify_stack(request, inference.pixels, model.spec)
        model.require_same(records)
        answer = await run_in_threadpool(encode, model, inference, records)
        return await _respond(request, answer)


async def _receive(request: Request, model: Signature, limits: Limits, share: MemoryShare) -> Inference:
    json_length = json_length_of(request.headers.get(_JSON_LENGTH))
    coding = content_coding(request.headers.get("content-encoding"))
    pad = padding(json_length)
    buffer = bytearray(pad)

    def keep(piece: bytes) -> None:
        share.reserve(len(piece))
        buffer.extend(piece)

    if coding is None:
        async for chunk in request.stream():
            keep(chunk)
    else:
        await receive_body(request, Decompressor(coding, limits.unpacked_bytes), keep)
    body = memoryview(buffer)[pad:]
    limits = replace(limits, admit=share.reserve)
    inference = await run_in_threadpool(decode, body, json_length, model, limits)
    share.shrink_to(inference.pixels.nbytes)
    return inference


async def _respond(request: Request, answer: Answer) -> Response:
    coding = answer_coding(request.headers.get("accept-encoding"))
    headers: dict[str, str] = {}
    if coding is not None:
        headers["Content-Encoding"] = coding
    if answer.json_length is not None:
        headers[_JSON_LENGTH] = str(answer.json_length)
    content = await run_in_threadpool(compress_body, answer.parts, coding)
    media_type = "application/json" if answer.json_length is None else "application/octet-stream"
    return Response(content, headers=headers, media_type=media_type)
