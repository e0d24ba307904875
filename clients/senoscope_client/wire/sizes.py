"""Size limits of messages, for senders and receiving sockets."""

from __future__ import annotations

from typing import Final

MAX_TOPIC_BYTES: Final = 512
MAX_HEADER_BYTES: Final = 64 * 1024
MAX_PIXEL_BYTES: Final = 64 * 1024 * 1024
"""Limit for one frame; `senoscope_client.wire.messages.encode` rejects larger ones."""
MAX_PART_BYTES: Final = MAX_PIXEL_BYTES + 1024
"""``ZMQ_MAXMSGSIZE`` of sockets that receive frames: the largest part and the bytes that CURVE adds to it.
ZeroMQ disconnects peers that send a larger one."""
MAX_RESULT_BYTES: Final = 64 * 1024 * 1024
"""Limit for one result or decision, including its maps."""
