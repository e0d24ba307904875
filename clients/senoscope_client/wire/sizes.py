"""The largest messages: what senders may send, and what receiving sockets accept."""

from __future__ import annotations

from typing import Final

MAX_TOPIC_BYTES: Final = 512
MAX_HEADER_BYTES: Final = 64 * 1024
MAX_PIXEL_BYTES: Final = 64 * 1024 * 1024
"""Of one frame; `senoscope_client.wire.messages.encode` refuses more."""
MAX_PART_BYTES: Final = MAX_PIXEL_BYTES + 1024
"""``ZMQ_MAXMSGSIZE`` of sockets that receive frames: the largest part, and what CURVE adds to it. ZeroMQ
hangs up on a peer that sends a larger one."""
MAX_RESULT_BYTES: Final = 64 * 1024 * 1024
"""Of one result or decision, with its maps."""
