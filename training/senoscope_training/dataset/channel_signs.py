"""Names that look as if each file held one channel: seen, and how to say so in a configuration."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import yaml

from senoscope_training.dataset.channel_words import (
    EXTRAS,
    NUMBERED,
    TRACK,
    WAVES,
    is_known,
    plain,
    sign_pattern,
)
from senoscope_training.dataset.faults import natural
from senoscope_training.dataset.per_channel import combine, without
from senoscope_training.dataset.table import Row

_MOST_CHANNELS = 8
_ENOUGH = 0.9  # of the fields of view must be as expected
_BALANCE = 0.4  # of the files of the commonest channel must be there of another
_PIECES = re.compile(r"(?:channel|chan|ch)[_ =-]\d+|(?<![^\W\d_])c=\d+|[^\W\d_]+\d*|\d+", re.IGNORECASE)
_SUFFIX = re.compile(r"(?:\.ome)?\.[^./]*$", re.IGNORECASE)
_GAP = re.compile(r"[\s_+-]{0,3}")
_SPECTRAL = re.compile(r"\d{3,4}")

Span = tuple[int, int]


@dataclass(frozen=True)
class Detected:
    """Names that look as if each file held one channel.

    Attributes
    ----------
    tokens : tuple of str
        What data.per_channel can be set to, in natural order or that of data.channels; empty where no
        setting would put the files together.
    fovs : int
        How many fields of view the files would be.
    files : int
        How many files.
    example : tuple of str
        The files of one field of view, or one file of each channel.
    sure : bool
        Whether they are such as channels have; bare numbers may count anything.
    """

    tokens: tuple[str, ...]
    fovs: int
    files: int
    example: tuple[str, ...]
    sure: bool

    @property
    def words(self) -> str:
        """What was seen."""
        return (
            f"the names of {self.files} files look like {self.fovs} fields of view with one file per channel "
            f"({', '.join(self.example)})"
        )

    @property
    def setting(self) -> str:
        """What to set, as it continues "if they are"."""
        if not self.tokens:
            return (
                "rename the files so that those of a field of view differ in the channel alone, and set "
                "data.per_channel to what differs"
            )
        return (
            f"set data.per_channel: [{', '.join(map(_written, self.tokens))}], in the order of data.channels"
        )


def _written(token: str) -> str:
    """A token as YAML has it: 1_ and 2850 would be numbers without quotation marks."""
    try:
        is_same = yaml.safe_load(f"[{token}]") == [token]
    except yaml.YAMLError:
        is_same = False
    return token if is_same else f"'{token}'"


@dataclass(frozen=True)
class _Candidate:
    """A part of the path that differs between channels: its place in each path that has one."""

    spans: dict[str, Span]
    sure: bool

    def tokens(self, before: str = "", after: str = "") -> dict[str, str]:
        """The spelling of each token that comes first, by the token in small letters."""
        found: dict[str, str] = {}
        for file, (start, end) in self.spans.items():
            found.setdefault(file[start:end].casefold(), f"{before}{file[start:end]}{after}")
        return found

    def context(self) -> tuple[str, str]:
        """The characters before and behind the token that are the same in all files; empty if none are."""
        before = {file[start - 1 : start] for file, (start, _) in self.spans.items()}
        after = {file[end : end + 1] for file, (_, end) in self.spans.items()}
        left, right = (some.pop() if len(some) == 1 else "" for some in (before, after))
        return ("" if left.isalnum() else left), ("" if right.isalnum() or right == "." else right)


def detect(rows: Sequence[Row], channels: Sequence[str]) -> Detected | None:
    """Whether names look like one file per channel.

    Either one piece of the path has the same two to eight values for nearly every choice of the other
    pieces, with one label and one group; or every file has a sign of a channel, and each class has about
    as many files of each. Where only half of the files have one, that is not sure.

    Parameters
    ----------
    rows : sequence of Row
    channels : sequence of str
        Names that data.channels has; as pieces of names they are sure.
    """
    found = [_settled(one, rows, channels) for one in _candidates(rows, channels)]
    return max(
        found,
        key=lambda one: (
            one.sure,
            bool(one.tokens),
            sum(_named(token, channels) is not None for token in one.tokens),
            one.fovs * len(one.tokens),
        ),
        default=None,
    )


def _candidates(rows: Sequence[Row], channels: Sequence[str]) -> list[_Candidate]:
    found = [*_by_place(rows, channels), *_by_sign(rows, channels)]
    return list({tuple(sorted(one.spans.items())): one for one in reversed(found)}.values())[::-1]


@dataclass(frozen=True)
class _Path:
    """The words and numbers of a path without its suffix, in small letters, and what is between them."""

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
        """What the files of a field of view have in common if one piece is the channel."""
        mine = self.texts[at]
        word = not any(character.isdigit() for character in mine)
        others = ["\0" if k == at or (word and text == mine) else text for k, text in enumerate(self.texts)]
        return (*others, *self.between)


def _by_place(rows: Sequence[Row], channels: Sequence[str]) -> Iterator[_Candidate]:
    paths = [_Path.of(row.file) for row in rows]
    longest = max((len(path.texts) for path in paths), default=0)
    # Counted from the end, where the channel mostly stands, and from the beginning, for names that begin
    # with it: paths of one set may have different numbers of pieces.
    for from_end in (True, False):
        for place in range(longest):
            groups: dict[tuple[str, ...], dict[str, str]] = defaultdict(dict)
            spans: dict[str, Span] = {}
            above = False  # whether the folders above classes name the channel
            for row, path in zip(rows, paths, strict=True):
                if place >= len(path.texts):
                    continue
                at = len(path.texts) - 1 - place if from_end else place
                group = without(row.group, path.texts[at])
                above |= group != row.group
                spans[row.file] = path.spans[at]
                key = (*path.without(at), row.label, row.split or "", group or "")
                groups[key][path.texts[at]] = row.file
            sure = _judged(list(groups.values()), channels)
            if sure or (sure is False and not above):
                yield _Candidate(spans, sure)


def _stem(file: str) -> str:
    return _SUFFIX.sub("", file)


def _judged(groups: list[dict[str, str]], channels: Sequence[str]) -> bool | None:
    """Whether what differs within groups of files is a channel for sure; None if it does not look like it."""
    if len(groups) < 2:
        return None
    tokens, count = Counter(frozenset(group) for group in groups).most_common(1)[0]
    if not 2 <= len(tokens) <= _MOST_CHANNELS or count < max(2, len(groups) / 2):
        return None
    # One of three or more channels may be lacking here and there.
    lacking = sum(len(group) == len(tokens) - 1 > 1 and tokens.issuperset(group) for group in groups)
    if count + lacking < _ENOUGH * len(groups):
        return None
    known = sum(is_known(token, channels) for token in tokens)
    if known:  # beside names numbers are wavelengths
        known += sum(_SPECTRAL.fullmatch(token) is not None for token in tokens)
    sure = all(NUMBERED.fullmatch(token) for token in tokens) or known >= len(tokens) - 1
    return sure if sure or len(tokens) == len(channels) else None


def _by_sign(rows: Sequence[Row], channels: Sequence[str]) -> Iterator[_Candidate]:
    """Candidates for which every file has a sign of a channel, whatever else differs."""
    pattern = sign_pattern(channels)
    signs = {row.file: _signs(row, pattern) for row in rows}
    signed = [file for file, some in signs.items() if some]
    if len(signed) < len(rows) / 2:
        return
    extras = {file for file, some in signs.items() if any(_text(file, one) in EXTRAS for one in some)}
    if 2 * len(extras) >= len(signed):  # all are projections, and no additions
        extras = set()
    seen = {
        file: sure
        for file, some in signs.items()
        if file not in extras and (sure := [one for one in some if _text(file, one) not in EXTRAS])
    }
    for choose in (_last, _last_word, _run, _long_run, _first, _first_word):
        spans = {file: choose(file, some) for file, some in seen.items()}
        if _balanced(rows, spans):
            yield _Candidate(spans, sure=len(signed) >= _ENOUGH * len(rows))


def _signs(row: Row, pattern: re.Pattern[str]) -> list[Span]:
    """Where signs of channels are in a path; a class's folder is none."""
    spans = [match.span() for match in pattern.finditer(_stem(row.file))]
    return [span for span in spans if _text(row.file, span) != row.label.casefold()]


def _text(file: str, span: Span) -> str:
    return file[slice(*span)].casefold()


def _last(_: str, signs: Sequence[Span]) -> Span:
    return signs[-1]


def _first(_: str, signs: Sequence[Span]) -> Span:
    return signs[0]


def _word(file: str, span: Span) -> Span:
    """A sign without the number behind it, which may count fields of view."""
    text = file[slice(*span)]
    bare = text.rstrip("0123456789 _-")
    if NUMBERED.fullmatch(text) or re.fullmatch(WAVES, text, re.IGNORECASE) or not bare:
        return span
    return span[0], span[0] + len(bare)


def _last_word(file: str, signs: Sequence[Span]) -> Span:
    return _word(file, signs[-1])


def _first_word(file: str, signs: Sequence[Span]) -> Span:
    return _word(file, signs[0])


def _run(file: str, signs: Sequence[Span]) -> Span:
    """The last sign with those just before it: w1SRS, Green - dsRed, SRS2850_ch1."""
    start, end = signs[-1]
    for other in reversed(signs[:-1]):
        if not _GAP.fullmatch(file[other[1] : start]):
            break
        start = other[0]
    return start, end


def _long_run(file: str, signs: Sequence[Span]) -> Span:
    """The same with the track behind it: AF488-T1."""
    start, end = _run(file, signs)
    gap = _GAP.match(file, end)
    track = TRACK.match(file, gap.end()) if gap else None
    return start, track.end() if track else end


def _balanced(rows: Sequence[Row], spans: dict[str, Span]) -> bool:
    """Whether all classes have the same two to eight tokens, and about as many files of each."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        if row.file in spans:
            counts[row.label][_text(row.file, spans[row.file])] += 1
    if len(set().union(*counts.values())) > _MOST_CHANNELS:
        return False
    common = {
        frozenset(token for token, count in some.items() if count >= _BALANCE * max(some.values()))
        for some in counts.values()
    }
    return len(common) == 1 and 2 <= len(next(iter(common))) <= _MOST_CHANNELS


def _settled(candidate: _Candidate, rows: Sequence[Row], channels: Sequence[str]) -> Detected:
    """The setting that puts most files together: tokens alone, or with what stands beside them."""
    usual = _usual(candidate)
    before, after = candidate.context()
    best: list[Row] = []
    chosen: tuple[str, ...] = ()
    files = sum(_text(file, span) in usual for file, span in candidate.spans.items())
    for left, right in (("", ""), ("", after), (before, ""), (before, after)):
        spelled = candidate.tokens(left, right)
        tokens = _ordered([spelled[token] for token in usual], channels)
        combined, _ = combine(rows, tokens, tokens)
        if len(combined) > len(best):
            best, chosen = combined, tokens
        if len(best) * len(usual) == files:
            break
    if len(best) * len(usual) >= files / 2:
        return Detected(chosen, _whole(files, usual), files, best[0].parts, candidate.sure)
    first: dict[str, str] = {}
    for file, span in candidate.spans.items():
        first.setdefault(_text(file, span), file)
    example = tuple(first[token] for token in _ordered(sorted(usual, key=natural), channels))
    return Detected((), _whole(files, usual), files, example, candidate.sure)


def _usual(candidate: _Candidate) -> list[str]:
    """Tokens that are in about as many files as the commonest, in natural order."""
    counts = Counter(_text(file, span) for file, span in candidate.spans.items())
    most = max(counts.values())
    return sorted((token for token, count in counts.items() if count >= _BALANCE * most), key=natural)


def _whole(files: int, tokens: Sequence[str]) -> int:
    return -(-files // len(tokens))


def _ordered(tokens: Sequence[str], channels: Sequence[str]) -> tuple[str, ...]:
    """In the order of the channels that they name, if they name one each; one token may be left over."""
    named = {token: _named(token, channels) for token in tokens}
    places = {place for place in named.values() if place is not None}
    rest = set(range(len(channels))) - places
    if len(places) < len(tokens) - 1 or (len(places) < len(tokens) and len(rest) != 1):
        return tuple(tokens)
    left_over = rest.pop() if rest else 0
    return tuple(sorted(tokens, key=lambda token: left_over if (k := named[token]) is None else k))


def _named(token: str, channels: Sequence[str]) -> int | None:
    """The channel whose name is in a token, the longest if there are several."""
    there = [(len(name), k) for k, name in enumerate(channels) if plain(name) and plain(name) in plain(token)]
    return max(there)[1] if there else None
