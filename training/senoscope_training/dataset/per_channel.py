"""Fields of view whose channels lie in files of their own: told by their names, and put together."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from senoscope_training.dataset.faults import Fault, natural
from senoscope_training.dataset.table import Row

_MOST_CHANNELS = 8
_ENOUGH = 0.9  # of the fields of view must have all channels
# What programs number channels with: LAS X _ch00, Fiji C1-, MetaXpress _w1, Opera -ch1sk1, Yokogawa Z01C01,
# Prairie View _Ch1, Micro-Manager channel000.
_NUMBERED = re.compile(
    r"(?:channel|chan|ch|c|w|wv|pmt|apd|det|detector|camera|cam)[_ ]?\d{1,3}", re.IGNORECASE
)
_PIECES = re.compile(r"(?:channel|chan|ch)[_ ]\d+|[^\W\d_]+\d*|\d+", re.IGNORECASE)
# Detectors and dyes that name channels.
_NAMES = frozenset(
    {
        *(
            "srs",
            "cars",
            "tpef",
            "tpf",
            "2pef",
            "shg",
            "thg",
            "nadh",
            "nadph",
            "fad",
            "flim",
            "raman",
            "reflection",
        ),
        *(
            "transmission",
            "trans",
            "transmitted",
            "brightfield",
            "bf",
            "dic",
            "phase",
            "pmt",
            "tpmt",
            "td",
            "dodt",
        ),
        *(
            "dapi",
            "hoechst",
            "fitc",
            "tritc",
            "gfp",
            "egfp",
            "rfp",
            "yfp",
            "cfp",
            "bfp",
            "mcherry",
            "tdtomato",
        ),
        *(
            "cy2",
            "cy3",
            "cy5",
            "cy7",
            "texasred",
            "red",
            "green",
            "blue",
            "farred",
            "alexa488",
            "af488",
            "af594",
        ),
        *(
            "lipid",
            "lipids",
            "protein",
            "water",
            "dna",
            "actin",
            "nuclei",
            "bodipy",
            "mitotracker",
            "ch2",
            "ch3",
        ),
    }
)
_PLACE = "\0"


@dataclass(frozen=True)
class Detected:
    """Names that look as if each file held one channel.

    Attributes
    ----------
    tokens : tuple of str
        What differs between the files of one field of view, in natural order.
    fovs : int
        How many fields of view the files would be.
    files : int
        How many files.
    example : tuple of str
        The files of one field of view.
    sure : bool
        Whether the tokens are such as channels have; bare numbers may count anything.
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
        """What to set."""
        return f"data.per_channel: [{', '.join(self.tokens)}], in the order of data.channels"


class Pattern:
    """What names of files say about channels.

    Parameters
    ----------
    tokens : sequence of str
        Part of the name, or of the path, of each channel's files.
    """

    def __init__(self, tokens: Sequence[str]) -> None:
        self.tokens = tuple(tokens)
        self._patterns = [_bounded(token) for token in tokens]

    def split(self, file: str) -> tuple[int, str] | None:
        """The channel of a file, and what the files of its field of view have in common.

        None where no token is in its path. Of several the last one counts.
        """
        found = self._find(file)
        if found is None:
            return None
        channel, match = found
        rest = PurePosixPath(self._replaced(file, channel, match, _PLACE))
        return channel, rest.with_suffix("").as_posix()

    def parts(self, root: Path, file: str) -> tuple[str, ...]:
        """The files of all channels, of which one is named.

        Those that are not there are among them.
        """
        found = self._find(file)
        if found is None:
            return (file,)
        channel, match = found
        names = [self._replaced(file, channel, match, token) for token in self.tokens]
        names[channel] = file
        return tuple(name if (root / name).is_file() else _nearby(root, name) for name in names)

    def _find(self, file: str) -> tuple[int, re.Match[str]] | None:
        found = [
            (match.end(), len(match[0]), channel, match)
            for channel, pattern in enumerate(self._patterns)
            for match in pattern.finditer(file)
        ]
        if not found:
            return None
        # The longest of those that end last: of the tokens "SRS" and "SRS 2", "SRS 2" is the second.
        _, _, channel, match = max(found, key=lambda one: one[:2])
        return channel, match

    def _replaced(self, file: str, channel: int, match: re.Match[str], by: str) -> str:
        """A path with another token: in all places if it is a word, in the last one if it is a number."""
        if any(character.isdigit() for character in self.tokens[channel]):
            return file[: match.start()] + by + file[match.end() :]
        return self._patterns[channel].sub(lambda _: by, file)


def _bounded(token: str) -> re.Pattern[str]:
    """A token in a path, but not as a part of a longer word or number."""
    kinds = {"letter": r"[^\W\d_]", "digit": r"\d"}
    first, last = (_kind(character) for character in (token[0], token[-1]))
    before = f"(?<!{kinds[first]})" if first else ""
    after = f"(?!{kinds[last]})" if last else ""
    return re.compile(f"{before}{re.escape(token)}{after}", re.IGNORECASE)


def _kind(character: str) -> str:
    return "digit" if character.isdigit() else "letter" if character.isalpha() else ""


def _nearby(root: Path, name: str) -> str:
    """The same file in other capitals, or with another ending of the same kind."""
    path = root / name
    try:
        there = sorted(other.name for other in path.parent.iterdir())
    except OSError:
        return name
    for same in (
        [one for one in there if one.casefold() == path.name.casefold()],
        [one for one in there if Path(one).stem.casefold() == path.stem.casefold()],
    ):
        if same:
            return str(PurePosixPath(name).with_name(same[0]))
    return name


def combine(
    rows: Iterable[Row], tokens: Sequence[str], channels: Sequence[str]
) -> tuple[list[Row], list[Fault]]:
    """One row per field of view, of rows of one channel's file each.

    The row has the first channel's file; ``parts`` has all of them, in the order of the channels.
    """
    pattern = Pattern(tokens)
    groups: dict[str, dict[int, list[Row]]] = defaultdict(lambda: defaultdict(list))
    faults: list[Fault] = []
    named = ", ".join(f"{token} for {channel}" for token, channel in zip(tokens, channels, strict=True))
    for row in rows:
        found = pattern.split(row.file)
        if found is None:
            remedy = f"data.per_channel names {named}: rename the file, or move it away"
            faults.append(Fault("per-channel", row.file, "has none of these in its name", remedy))
        else:
            groups[found[1]][found[0]].append(row)
    combined: list[Row] = []
    for members in groups.values():
        fault = _incomplete(members, tokens, channels)
        if fault is not None:
            faults.append(fault)
            continue
        parts = [members[channel][0] for channel in range(len(tokens))]
        combined.append(replace(parts[0], parts=tuple(part.file for part in parts)))
    return combined, faults


def _incomplete(
    members: dict[int, list[Row]], tokens: Sequence[str], channels: Sequence[str]
) -> Fault | None:
    there = [row for some in members.values() for row in some]
    first = min(row.file for row in there)
    twice = next((some for some in members.values() if len(some) > 1), None)
    if twice is not None:
        problem = f"and {twice[1].file} are the same channel of one field of view"
        remedy = "Move one of them away, or set data.per_channel to parts of the names that tell them apart"
        return Fault("per-channel", twice[0].file, problem, remedy)
    lacking = [f"{channels[c]} ({tokens[c]})" for c in range(len(tokens)) if c not in members]
    if lacking:
        problem = f"has no file beside it for {', '.join(lacking)}"
        remedy = "Add the missing channels (to dataset.csv too, where there is one), or move the file away"
        return Fault("per-channel", first, problem, remedy)
    told = {(row.label, row.group, row.split) for row in there}
    if len(told) > 1:
        problem = "and the other channels of its field of view have different labels, groups or splits"
        return Fault("per-channel", first, problem, "Give all channels of a field of view the same")
    return None


def detect(rows: Sequence[Row], channels: Sequence[str]) -> Detected | None:
    """Whether names look like one file per channel.

    One piece of the path must have the same two to eight values for nearly every choice of the other pieces,
    with one label and one group.

    Parameters
    ----------
    rows : sequence of Row
    channels : sequence of str
        Names that data.channels has; as pieces of names they are sure.
    """
    found = [one for one in _candidates(rows, channels) if one is not None]
    return max(found, key=lambda one: (one.sure, one.files, len(one.tokens)), default=None)


def _candidates(rows: Sequence[Row], channels: Sequence[str]) -> Iterator[Detected | None]:
    split = [_pieces(row.file) for row in rows]
    longest = max((len(pieces) for pieces, _ in split), default=0)
    # Counted from the end, where the channel mostly stands, and from the beginning, for names that begin
    # with it: paths of one set may have different numbers of pieces.
    for from_end in (True, False):
        for place in range(longest):
            groups: dict[tuple[str, ...], dict[str, str]] = defaultdict(dict)
            for row, (pieces, between) in zip(rows, split, strict=True):
                if place >= len(pieces):
                    continue
                mine = pieces[len(pieces) - 1 - place if from_end else place]
                word = not any(character.isdigit() for character in mine)
                at = len(pieces) - 1 - place if from_end else place
                others = [
                    _PLACE if k == at or (word and piece == mine) else piece for k, piece in enumerate(pieces)
                ]
                groups[(*others, *between, row.label, row.group or "", row.split or "")][mine] = row.file
            yield _judge(list(groups.values()), channels)


def _pieces(file: str) -> tuple[list[str], list[str]]:
    """The words and numbers of a path without its suffix, and what is between them."""
    path = PurePosixPath(file).with_suffix("")
    text = (path.with_suffix("") if path.suffix.lower() == ".ome" else path).as_posix()
    return _PIECES.findall(text), _PIECES.split(text)


def _judge(groups: list[dict[str, str]], channels: Sequence[str]) -> Detected | None:
    if len(groups) < 2:
        return None
    kinds = Counter(frozenset(group) for group in groups)
    tokens, count = kinds.most_common(1)[0]
    if not 2 <= len(tokens) <= _MOST_CHANNELS or count < max(2, _ENOUGH * len(groups)):
        return None
    names = {_plain(channel): k for k, channel in enumerate(channels)}
    known = sum(_plain(token) in names or _plain(token) in _NAMES for token in tokens)
    sure = all(_NUMBERED.fullmatch(token) for token in tokens) or known >= len(tokens) - 1
    if not sure and len(tokens) != len(channels):
        return None
    ordered = sorted(tokens, key=natural)
    if all(_plain(token) in names for token in tokens):
        ordered.sort(key=lambda token: names[_plain(token)])
    whole = [group for group in groups if frozenset(group) == tokens]
    example = tuple(whole[0][token] for token in ordered)
    return Detected(tuple(ordered), count, sum(map(len, whole)), example, sure)


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name).casefold()
