"""The asynchronous client, and progress, against the real service."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from senoscope_client import errors
from senoscope_client.cli import main as senoscope_client
from senoscope_client.http.async_client import AsyncClient
from senoscope_client.http.client import Client
from support import miniature as mini
from support.servers import Server


def test_concurrent_requests(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "plate.npy"
    np.save(path, np.stack([mini.bright(), mini.dark()]))

    async def main() -> None:
        sent: list[tuple[int, int]] = []
        async with AsyncClient(server.url) as client, client.live() as live:
            stacks = await asyncio.gather(
                client.classify(path, cam="grid", progress=lambda *now: sent.append(now)),
                *(client.classify(mini.dark()) for _ in range(5)),
            )
            assert [[r.label for r in stack] for stack in stacks] == [["senescent", "control"]] + 5 * [
                ["control"]
            ]
            assert sent[-1] == (path.stat().st_size,) * 2
            received = {(await anext(live)).id for _ in range(7)}
            assert received == {r.id for stack in stacks for r in stack}
            assert {r.id async for r in client.all_results(kind="upload")} >= received
            one = stacks[0][0]
            assert (await client.result(one.id)).probability == one.probability
            np.testing.assert_array_equal(await client.pixels(one.id), mini.bright())
            assert (await client.ready()).ready
            assert (await client.model())["name"] == "miniature"
            assert (await client.stream())["live"]["dropped"] == 0
            assert (await client.model_info()).name == "miniature"
            assert (await client.stream_status()).live.dropped == 0
            assert await client.series() == []
            assert (await client.decisions()).decisions == ()
            await client.export(tmp_path / "all.csv")
            assert str(one.id) in (tmp_path / "all.csv").read_text()
            for wrong, error in (
                (mini.bright(2), errors.WrongChannelCount),
                (b"?", errors.UnsupportedMediaType),
            ):
                with pytest.raises(error):
                    await client.classify(wrong)
            with pytest.raises(errors.NotFound):
                await client.one_series("00000000-0000-0000-0000-000000000000")

    asyncio.run(main())


def test_progress_of_each_file_is_printed(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "plate.npy", np.stack([mini.bright()] * 40))
    file = str(tmp_path / "plate.npy")
    assert senoscope_client(["classify", "--url", server.url, "--progress", "--csv", file, file]) == 0
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 81
    assert "1/2 plate.npy  17.2 MiB sent" in printed.err
    assert "2/2 plate.npy  17.2 MiB sent" in printed.err
    assert "fields of view classified" in printed.err
    assert senoscope_client(["classify", "--url", server.url, "--csv", file]) == 0
    assert capsys.readouterr().err == ""


def test_a_file_is_counted_while_it_is_sent(server: Server, tmp_path: Path) -> None:
    np.save(tmp_path / "plate.npy", np.stack([mini.bright()] * 20))
    sent: list[tuple[int, int]] = []
    with Client(server.url) as client:
        client.classify(tmp_path / "plate.npy", progress=lambda *now: sent.append(now))
    size = (tmp_path / "plate.npy").stat().st_size
    assert len(sent) > 10
    assert sent == sorted(sent)
    assert sent[-1] == (size, size)
