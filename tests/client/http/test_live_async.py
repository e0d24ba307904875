"""The asynchronous live streams, against a service that stops and starts again."""

from __future__ import annotations

import asyncio

import pytest
from websockets.asyncio.server import serve

from senoscope_client.errors import InvalidRequest, SenoscopeError, Unauthorized, Unreachable
from senoscope_client.http.live_async import AsyncLiveResults
from support.service_double import http_double, live_double, result


async def collect(url: str, **options) -> list:
    async with AsyncLiveResults(url, **options) as live:
        return [one async for one in live]


def test_results_end_when_the_service_stops():
    wanted = [result(frame=n) for n in range(3)]
    with live_double([r.model_dump_json() for r in wanted], 1001) as (url, paths):
        assert asyncio.run(collect(url, cam="grid", reconnect=False)) == wanted
        assert paths == ["/v1/live?cam=grid"]


@pytest.mark.parametrize("code", [1001, 1011])
def test_the_stream_reconnects_to_a_restarted_service(code):
    wanted = [result(frame=n) for n in range(3)]

    async def main():
        async def handle(connection):
            number = len(served)
            served.append(connection)
            await connection.send(wanted[number].model_dump_json())
            await connection.close(code)

        served = []
        async with serve(handle, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with AsyncLiveResults(f"http://127.0.0.1:{port}") as live:
                assert [await anext(live), await anext(live)] == wanted[:2]
                server.close()
                await server.wait_closed()
                waiting = asyncio.create_task(anext(live))
                await asyncio.sleep(0.6)
                async with serve(handle, "127.0.0.1", port):
                    assert await waiting == wanted[2]
                assert live.reconnects == 2

    asyncio.run(main())


@pytest.mark.parametrize(
    ("messages", "code", "error"),
    [([], 1008, InvalidRequest), ([], 1011, Unreachable), (["{}"], 0, SenoscopeError)],
)
def test_the_reason_of_a_lost_connection_is_raised(messages, code, error):
    with live_double(messages, code, "bad parameter") as (url, _), pytest.raises(error):
        asyncio.run(collect(url, reconnect=code in {0, 1008}))


def test_a_refused_connection_is_raised_and_not_retried():
    with http_double() as service:
        service.respond("/v1/live", Unauthorized("no key").problem().model_dump(), status=401)
        with pytest.raises(Unauthorized, match="no key"):
            asyncio.run(collect(service.url))
    with pytest.raises(Unreachable):
        asyncio.run(collect(service.url))
