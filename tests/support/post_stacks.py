"""Post stacks one after the other until a line is read from stdin; print a line of JSON per answer."""

from __future__ import annotations

import json
import sys
import threading
import time

import httpx

from support.load import stack


def main(url: str, fovs: int, pause_s: float) -> None:
    body = stack(fovs)
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.readline(), ended.set()), daemon=True).start()
    with httpx.Client(timeout=600) as client:
        while not ended.wait(pause_s):
            began = time.perf_counter()
            answer = client.post(f"{url}/v1/classify", content=body)
            seconds = time.perf_counter() - began
            content = answer.json()
            summary = {
                "status": answer.status_code,
                "seconds": seconds,
                "count": content.get("count"),
                "code": content.get("code"),
                "retry_after_s": answer.headers.get("Retry-After"),
                "compute_ms": [result["timing_ms"]["compute"] for result in content.get("results", [])],
            }
            print(json.dumps(summary), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
