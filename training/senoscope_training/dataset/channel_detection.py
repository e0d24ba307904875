"""Detection of data sets with one file per channel, by their file names, and the setting that fits them."""

from __future__ import annotations

import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import yaml

from senoscope_training.dataset.channel_names import (
    EXTRAS,
    NUMBERED,
    TRACK,
    WAVES,
    channel_pattern,
    is_known,
    normalized,
)
from senoscope_training.dataset.faults import natural_key
from senoscope_training.dataset.per_channel import combine, without_channel
from senoscope_training.dataset.table import Row

_MAX_CHANNELS = 8
_MIN_COMPLETE = 0.9  # fraction of the fields of view that must have all files
_MIN_BALANCE = 0.4  # files of any channel, as a fraction of the files of the most frequent channel
_PIECES = re.compile(r"(?:channel|chan|ch)[_ =-]\d+|(?<![^\W\d_])c=\d+|[^\W\d_]+\d*|\d+", re.IGNORECASE)
_SUFFIX = re.compile(r"(?:\.ome)?\.[^./]*$", re.IGNORECASE)
_GAP = re.compile(r"[\s_+-]{0,3}")
_SPECTRAL = re.compile(r"\d{3,4}")

Span = tuple[int, int]


@dataclass(frozen=True)
class PerChannelNames:
    """File names that look like one file per channel."""

    tokens: tuple[str, ...]
    """A value for data.per_channel, in natural order or in that of data.channels; empty if no value would
    combine the files."""
    fovs: int
    """Number of fields of view that the files would be."""
    files: int
    example: tuple[str, ...]
    """The files of one field of view, or one file of each channel."""
    is_certain: bool
    """Whether the tokens are names of channels; plain numbers may count something else."""

    @property
    def description(self) -> str:
        """What the names look like."""
        return (
            f"the names of {self.files} files look like {self.fovs} fields of view with one file per channel "
            f"({', '.join(self.example)})"
        )

    @property
    def setting(self) -> str:
        """The advice for data.per_channel, as a clause."""
        if not self.tokens:
            return (
                "rename the files so that those of a field of view differ only in the channel, and set "
                "data.per_channel to the part that differs"
            )
        # In YAML, tokens that would be read as numbers, such as 1_ and 2850, are quoted.
        listed = yaml.safe_dump(
            list(self.tokens), default_flow_style=True, allow_unicode=True, width=sys.maxsize
        )
        return f"set data.per_channel: {listed.rstrip()}, in the order of data.channels"


@dataclass(frozen=True)
class _Candidate:
    """A part of the path that may be the channel: its span in each path that has it."""

    spans: dict[str, Span]
    is_certain: bool

    def tokens(self, before: str = "", after: str = "") -> dict[str, str]:
        """Return the first spelling of each token, by the token in lower case."""
        found: dict[str, str] = {}
        for file, (start, end) in self.spans.items():
            found.setdefault(file[start:end].casefold(), f"{before}{file[start:end]}{after}")
        return found

    def context(self) -> tuple[str, str]:
        """Return the characters before and after the token, each empty if it differs between files."""
        before = {file[start - 1 : start] for file, (start, _) in self.spans.items()}
        after = {file[end : end + 1] for file, (_, end) in self.spans.items()}
        left, right = (some.pop() if len(some) == 1 else "" for some in (before, after))
        return ("" if left.isalnum() else left), ("" if right.isalnum() or right == "." else right)


def detect(rows: Sequence[Row], channels: Sequence[str]) -> PerChannelNames | None:
    """Detect names that look like one file per channel.

    They do if one piece of the path has the same two to eight values for nearly every combination of the
    other pieces, with one label and one group; or if every path contains the name or number of a channel,
    and each class has about as many files of each channel. The result is uncertain if only half of the
    paths contain one.
    """
    found = [_with_setting(one, rows, channels) for one in _candidates(rows, channels)]
    return max(
        found,
        key=lambda one: (
            one.is_certain,
            bool(one.tokens),
            sum(_channel_of(token, channels) is not None for token in one.tokens),
            one.fovs * len(one.tokens),
        ),
        default=None,
    )


def _candidates(rows: Sequence[Row], channels: Sequence[str]) -> list[_Candidate]:
    found = [*_by_position(rows, channels), *_by_name(rows, channels)]
    return list({tuple(sorted(one.spans.items())): one for one in reversed(found)}.values())[::-1]


@dataclass(frozen=True)
class _Path:
    """The words and numbers of a path without its suffix, in lower case, and the text between them."""

    spans: tuple[Span, ...]
    texts: tuple[str, ...]
    between: tuple[str, ...]

    @classmethod
    def of(cls, file: str) -> _Path:
        stem = _stem(file)
        pieces = list(_PIECES.finditer(stem))
        texts = tuple(piece[0].casefold() for piece in pieces)
        return cls(tuple(piece.span() for piece in pieces), texts, tuple(_PIECES.split(stem)))

    def without(self, at: int) -> tuple[str, ...]:
        """Return what the files of a field of view have in common if one piece is the channel."""
        mine = self.texts[at]
        word = not any(character.isdigit() for character in mine)
        others = ["\0" if k == at or (word and text == mine) else text for k, text in enumerate(self.texts)]
        return (*others, *self.between)


def _by_position(rows: Sequence[Row], channels: Sequence[str]) -> Iterator[_Candidate]:
    """Find candidates that are the piece at one position in all paths."""
    paths = [_Path.of(row.file) for row in rows]
    longest = max((len(path.texts) for path in paths), default=0)
    # Positions are counted from the end, where the channel usually is, and from the beginning, because paths
    # of one data set may have different numbers of pieces.
    for from_end in (True, False):
        for position in range(longest):
            groups: dict[tuple[str, ...], dict[str, str]] = defaultdict(dict)
            spans: dict[str, Span] = {}
            in_group = False  # whether the name of the group contains the channel
            for row, path in zip(rows, paths, strict=True):
                if position >= len(path.texts):
                    continue
                at = len(path.texts) - 1 - position if from_end else position
                group = without_channel(row.group, path.texts[at])
                in_group |= group != row.group
                spans[row.file] = path.spans[at]
                key = (*path.without(at), row.label, row.split or "", group or "")
                groups[key][path.texts[at]] = row.file
            is_certain = _is_channel(list(groups.values()), channels)
            if is_certain or (is_certain is False and not in_group):
                yield _Candidate(spans, is_certain)


def _stem(file: str) -> str:
    return _SUFFIX.sub("", file)


def _is_channel(groups: list[dict[str, str]], channels: Sequence[str]) -> bool | None:
    """Return True if the piece that differs within groups is the channel, False if it may be, or None."""
    if len(groups) < 2:
        return None
    tokens, count = Counter(frozenset(group) for group in groups).most_common(1)[0]
    if not 2 <= len(tokens) <= _MAX_CHANNELS or count < max(2, len(groups) / 2):
        return None
    # Of three or more channels, one may be missing in some groups.
    incomplete = sum(len(group) == len(tokens) - 1 > 1 and tokens.issuperset(group) for group in groups)
    if count + incomplete < _MIN_COMPLETE * len(groups):
        return None
    known = sum(is_known(token, channels) for token in tokens)
    if known:  # next to names, numbers are wavelengths
        known += sum(_SPECTRAL.fullmatch(token) is not None for token in tokens)
    is_certain = all(NUMBERED.fullmatch(token) for token in tokens) or known >= len(tokens) - 1
    return is_certain if is_certain or len(tokens) == len(channels) else None


def _by_name(rows: Sequence[Row], channels: Sequence[str]) -> Iterator[_Candidate]:
    """Find candidates that are names of channels anywhere in the paths."""
    pattern = channel_pattern(channels)
    names = {row.file: _names(row, pattern) for row in rows}
    named = [file for file, spans in names.items() if spans]
    if len(named) < len(rows) / 2:
        return
    extras = {file for file, spans in names.items() if any(_text(file, one) in EXTRAS for one in spans)}
    if 2 * len(extras) >= len(named):  # then all files are such projections
        extras = set()
    kept = {
        file: rest
        for file, spans in names.items()
        if file not in extras and (rest := [one for one in spans if _text(file, one) not in EXTRAS])
    }
    choices: tuple[Callable[[str, Sequence[Span]], Span], ...] = (
        lambda _, names: names[-1],
        lambda file, names: _word(file, names[-1]),
        _run,
        _long_run,
        lambda _, names: names[0],
        lambda file, names: _word(file, names[0]),
    )
    for choose in choices:
        spans = {file: choose(file, some) for file, some in kept.items()}
        if _is_balanced(rows, spans):
            yield _Candidate(spans, is_certain=len(named) >= _MIN_COMPLETE * len(rows))


def _names(row: Row, pattern: re.Pattern[str]) -> list[Span]:
    """Return the spans of names of channels in a path, except for the folder of the class."""
    spans = [match.span() for match in pattern.finditer(_stem(row.file))]
    return [span for span in spans if _text(row.file, span) != row.label.casefold()]


def _text(file: str, span: Span) -> str:
    return file[slice(*span)].casefold()


def _word(file: str, span: Span) -> Span:
    """Remove a number at the end of a name, which may count fields of view."""
    text = file[slice(*span)]
    bare = text.rstrip("0123456789 _-")
    if NUMBERED.fullmatch(text) or re.fullmatch(WAVES, text, re.IGNORECASE) or not bare:
        return span
    return span[0], span[0] + len(bare)


def _run(file: str, names: Sequence[Span]) -> Span:
    """Return the last name with those directly before it: w1SRS, Green - dsRed, SRS2850_ch1."""
    start, end = names[-1]
    for other in reversed(names[:-1]):
        if not _GAP.fullmatch(file[other[1] : start]):
            break
        start = other[0]
    return start, end


def _long_run(file: str, names: Sequence[Span]) -> Span:
    """Return the same with the track that follows: AF488-T1."""
    start, end = _run(file, names)
    gap = _GAP.match(file, end)
    track = TRACK.match(file, gap.end()) if gap else None
    return start, track.end() if track else end


def _is_balanced(rows: Sequence[Row], spans: dict[str, Span]) -> bool:
    """Return whether all classes have the same two to eight tokens, and about as many files of each."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        if row.file in spans:
            counts[row.label][_text(row.file, spans[row.file])] += 1
    if len(set().union(*counts.values())) > _MAX_CHANNELS:
        return False
    common = {
        frozenset(token for token, count in some.items() if count >= _MIN_BALANCE * max(some.values()))
        for some in counts.values()
    }
    return len(common) == 1 and 2 <= len(next(iter(common))) <= _MAX_CHANNELS


def _with_setting(candidate: _Candidate, rows: Sequence[Row], channels: Sequence[str]) -> PerChannelNames:
    """Find the setting that combines most files: the tokens, alone or with the characters around them."""
    frequent = _frequent_tokens(candidate)
    before, after = candidate.context()
    best: list[Row] = []
    chosen: tuple[str, ...] = ()
    files = sum(_text(file, span) in frequent for file, span in candidate.spans.items())
    for left, right in (("", ""), ("", after), (before, ""), (before, after)):
        spelled = candidate.tokens(left, right)
        tokens = _in_channel_order([spelled[token] for token in frequent], channels)
        combined, _ = combine(rows, tokens, tokens)
        if len(combined) > len(best):
            best, chosen = combined, tokens
        if len(best) * len(frequent) == files:
            break
    fovs = -(-files // len(frequent))  # rounded up
    if len(best) * len(frequent) >= files / 2:
        return PerChannelNames(chosen, fovs, files, best[0].parts, candidate.is_certain)
    first: dict[str, str] = {}
    for file, span in candidate.spans.items():
        first.setdefault(_text(file, span), file)
    example = tuple(first[token] for token in _in_channel_order(frequent, channels))
    return PerChannelNames((), fovs, files, example, candidate.is_certain)


def _frequent_tokens(candidate: _Candidate) -> list[str]:
    """Return the tokens that are in about as many files as the most frequent one, in natural order."""
    counts = Counter(_text(file, span) for file, span in candidate.spans.items())
    most = max(counts.values())
    return sorted((token for token, count in counts.items() if count >= _MIN_BALANCE * most), key=natural_key)


def _in_channel_order(tokens: Sequence[str], channels: Sequence[str]) -> tuple[str, ...]:
    """Sort tokens in the order of their channels if each contains a different one; one token may not."""
    named = {token: _channel_of(token, channels) for token in tokens}
    places = {place for place in named.values() if place is not None}
    rest = set(range(len(channels))) - places
    if len(places) < len(tokens) - 1 or (len(places) < len(tokens) and len(rest) != 1):
        return tuple(tokens)
    left_over = rest.pop() if rest else 0
    return tuple(sorted(tokens, key=lambda token: left_over if (k := named[token]) is None else k))


def _channel_of(token: str, channels: Sequence[str]) -> int | None:
    """Return the index of the channel whose name is in a token, the longest name if there are several."""
    names = [normalized(channel) for channel in channels]
    found = [(len(channels[k]), k) for k, name in enumerate(names) if name and name in normalized(token)]
    return max(found)[1] if found else None
