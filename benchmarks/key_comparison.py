"""Measure whether the duration of an API key's check depends on the key.

Checks, in random order, correct keys and wrong ones: one that differs in its first character, one in its
last, and one whose hash begins like the correct one, which a comparison that stops at the first difference
would reveal. Prints medians, and their ratios to the first kind of wrong key, measured in the same run.

    python benchmarks/key_comparison.py [--rounds N] [--keys N] [--result FILE]
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import secrets
import statistics
import time
from datetime import UTC, datetime
from pathlib import Path

from senoscope.access.api_keys import ApiKey, find_key, hash_of

BATCH = 20  # checks per reading of the clock
SHARED = 4  # hexadecimal digits of the hash


def other(character: str) -> str:
    """Return another character."""
    return "A" if character != "A" else "B"


def alike(key: str) -> str:
    """Return a key of the same length whose hash begins like that of the key."""
    beginning = hash_of(key)[:SHARED]
    for n in itertools.count():
        candidate = f"{n:0{len(key)}d}"
        if hash_of(candidate).startswith(beginning):
            return candidate
    raise AssertionError


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=4000)
    parser.add_argument("--keys", type=int, default=20)
    parser.add_argument("--result", type=Path)
    options = parser.parse_args()
    texts = [f"senoscope_{secrets.token_urlsafe(32)}" for _ in range(options.keys)]
    now = datetime.now(UTC)
    known = tuple(
        ApiKey(name=f"k{n}", sha256=hash_of(text), scopes=("read",), created=now)
        for n, text in enumerate(texts)
    )
    first, last = texts[0], texts[-1]
    kinds = {
        "wrong in its first character": other(first[0]) + first[1:],
        "wrong in its last character": first[:-1] + other(first[-1]),
        f"wrong, its hash alike for {SHARED} digits": alike(first),
        "right, first of all keys": first,
        "right, last of all keys": last,
    }
    taken: dict[str, list[float]] = {kind: [] for kind in kinds}
    order = list(kinds.items())
    for _ in range(options.rounds):
        random.shuffle(order)
        for kind, text in order:
            began = time.perf_counter_ns()
            for _ in range(BATCH):
                find_key(known, text)
            taken[kind].append((time.perf_counter_ns() - began) / BATCH)
    medians = {kind: statistics.median(times) for kind, times in taken.items()}
    base = next(iter(medians.values()))
    report = {
        "keys": options.keys,
        "rounds": options.rounds,
        "median_ns": {kind: round(value) for kind, value in medians.items()},
        "ratio": {kind: round(value / base, 4) for kind, value in medians.items()},
    }
    text = json.dumps(report, indent=2)
    print(text)
    if options.result:
        options.result.write_text(text + "\n")


if __name__ == "__main__":
    main()
