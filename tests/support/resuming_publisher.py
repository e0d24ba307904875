"""An acquisition program in a separate process, which prints the number of each frame before it sends it.

    python resuming_publisher.py ENDPOINT RATE_HZ WAIT_S SERIES_UID FIRST_FRAME

It waits up to WAIT_S for a subscriber, then begins anyway. A series that does not begin at frame 0 is
continued without a start message. Each line of standard input ends the series and begins one with that UID;
the end of the input ends the program.
"""

from __future__ import annotations

import queue
import sys
import threading
import time
import uuid

import numpy as np
import zmq

from senoscope_client.wire.messages import (
    EndHeader,
    Header,
    HeartbeatHeader,
    ImageHeader,
    StartHeader,
    Timestamp,
    encode,
)

CHANNELS = ("SRS", "TPEF", "Transmission")
HEARTBEAT_S = 1.0


def main(endpoint: str, rate_hz: float, wait_s: float, uid: uuid.UUID, frame: int) -> None:
    pixels = np.full((3, 250, 300), 400, np.uint16)
    socket = zmq.Context.instance().socket(zmq.XPUB)
    socket.bind(endpoint)
    socket.poll(wait_s * 1000)
    commands: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=read, args=(commands,), daemon=True).start()

    def send(header: Header, pixels: np.ndarray | None = None) -> None:
        socket.send_multipart(encode(header, pixels))

    def common() -> dict:
        return {"instrument": "nlo-1", "series_id": "plate 1", "series_uid": uid}

    next_beat_s = time.monotonic() + HEARTBEAT_S
    while True:
        if frame == 0:
            send(StartHeader(**common()))
        print(uid, frame, flush=True)
        send(
            ImageHeader(
                **common(),
                frame=frame,
                shape=pixels.shape,
                dtype="uint16",
                channels=CHANNELS,
                timestamp=Timestamp.from_ns(time.time_ns()),
                pixel_size_um=0.35,
            ),
            pixels,
        )
        if time.monotonic() >= next_beat_s:
            send(HeartbeatHeader(**common(), frame=frame))
            next_beat_s += HEARTBEAT_S
        frame += 1
        try:
            command = commands.get(timeout=1 / rate_hz)
        except queue.Empty:
            continue
        send(EndHeader(**common(), frames_sent=frame, reason="completed"))
        if command is None:
            break
        uid, frame = uuid.UUID(command), 0
    socket.close(2000)
    zmq.Context.instance().term()


def read(commands: queue.Queue[str | None]) -> None:
    for line in sys.stdin:
        commands.put(line.strip())
    commands.put(None)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), float(sys.argv[3]), uuid.UUID(sys.argv[4]), int(sys.argv[5]))
