"""The rule file: what is decided on which results, within which limits."""

from __future__ import annotations

import difflib
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from senoscope_client.errors import InvalidRequest
from senoscope_client.models.base import StrictModel
from senoscope_client.models.decision import Action
from senoscope_client.models.result import Result

Measure = Literal["probability", "entropy", "mutual_information", "agreement"]
_MEASURES: Final[tuple[Measure, ...]] = ("probability", "entropy", "mutual_information", "agreement")
_Fraction = Annotated[float, Field(ge=0, le=1)]
_Codes = tuple[Annotated[str, Field(pattern=r"^[a-z0-9_]{1,64}$")], ...]
_MAX_BYTES: Final = 1024 * 1024


class RulesError(InvalidRequest):
    """A rule file cannot be used; says which key, and what to do."""


class Threshold(StrictModel):
    """A bound that a value crosses to enter, and another that it crosses back to leave.

    Attributes
    ----------
    above, below : float or None
        One of the two: the value must be more, or less, than this.
    release : float or None
        Once the rule holds, it goes on holding until the value is under (``above``) or over (``below``)
        this; None: until the value no longer meets the first bound.
    """

    above: _Fraction | None = None
    below: _Fraction | None = None
    release: _Fraction | None = None

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if (self.above is None) == (self.below is None):
            raise ValueError("takes either above or below, such as { above = 0.8, release = 0.6 }")
        if self.release is None:
            return self
        if self.above is not None and self.release > self.above:
            raise ValueError(f"release must not be more than above ({self.above:g})")
        if self.below is not None and self.release < self.below:
            raise ValueError(f"release must not be less than below ({self.below:g})")
        return self

    def holds(self, value: float, held: bool) -> bool:
        """Whether a value meets it, given whether the rule held on the field of view before."""
        if held and self.release is not None:
            return value >= self.release if self.above is not None else value <= self.release
        return value > self.above if self.above is not None else value < self._below

    def describe(self, value: float | None = None, held: bool = False) -> str:
        """Describe the threshold, or how a value meets it."""
        side, bound, other = ("above", self.above, "under")
        if bound is None:
            side, bound, other = ("below", self._below, "over")
        shown = "" if value is None else f"{value:.3f} is "
        if value is None:
            end = f" (until {other} {self.release:g})" if self.release is not None else ""
            return f"{side} {bound:g}{end}"
        if held and self.release is not None:
            return f"{shown}not {other} {self.release:g}"
        return f"{shown}{side} {bound:g}"

    @property
    def _below(self) -> float:
        assert self.below is not None
        return self.below


class Conditions(StrictModel):
    """What a result must be like; all that are given must hold.

    Attributes
    ----------
    probability, entropy, mutual_information, agreement : Threshold or None
    label : str or None
    flags_present, flags_absent : tuple of str
        Codes of flags that the result must have, all of them, and must not have, none of them.
    """

    probability: Threshold | None = None
    entropy: Threshold | None = None
    mutual_information: Threshold | None = None
    agreement: Threshold | None = None
    label: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    flags_present: _Codes = ()
    flags_absent: _Codes = ()

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("names no condition: the rule would act on every field of view")
        if both := set(self.flags_present) & set(self.flags_absent):
            raise ValueError(f"wants the flag {min(both)} both present and absent")
        return self

    def thresholds(self) -> Iterator[tuple[Measure, Threshold]]:
        """Those that are given."""
        for name in _MEASURES:
            threshold: Threshold | None = getattr(self, name)
            if threshold is not None:
                yield name, threshold

    def hold(self, result: Result, held: bool) -> bool:
        """Whether a result meets all, given whether the rule held on the field of view before."""
        if self.label is not None and result.label != self.label:
            return False
        if self.flags_present or self.flags_absent:
            codes = {flag.code for flag in result.flags}
            if not codes.issuperset(self.flags_present) or not codes.isdisjoint(self.flags_absent):
                return False
        return all(threshold.holds(_measure(result, name), held) for name, threshold in self.thresholds())

    def describe(self, result: Result | None = None, held: bool = False) -> str:
        """Describe all conditions, or how a result meets them."""
        parts = [
            f"{name.replace('_', ' ')} "
            + threshold.describe(None if result is None else _measure(result, name), held)
            for name, threshold in self.thresholds()
        ]
        parts += [f"label is {self.label}"] if self.label is not None else []
        parts += [f"flagged {code}" for code in self.flags_present]
        parts += [f"not flagged {code}" for code in self.flags_absent]
        return ", ".join(parts)


class Rule(StrictModel):
    """When to ask for what.

    Attributes
    ----------
    name : str
        Unique in the file; every decision tells it.
    action : {"revisit", "skip", "stop"}
    when : Conditions
    running : int
        On how many consecutive fields of view of a series the conditions must hold before the rule does.
    """

    name: Annotated[str, Field(pattern=r"^\S(.{0,62}\S)?$")]
    action: Action
    when: Conditions
    running: Annotated[int, Field(ge=1, le=10_000)] = 1

    def describe(self) -> str:
        """Describe the rule."""
        run = f", for {self.running} fields of view running" if self.running > 1 else ""
        return f"{self.name}: {self.action} when {self.when.describe()}{run}"


class RevisitLimits(StrictModel):
    """How often places may be scanned again, in each series, whatever the rules ask for.

    Attributes
    ----------
    max_revisits, max_revisits_per_place : int
        In all, and of one place.
    place_radius_um : float
        Stage positions closer than this in x and y are one place.
    """

    max_revisits: Annotated[int, Field(ge=0, le=10_000)] = 20
    max_revisits_per_place: Annotated[int, Field(ge=0, le=1000)] = 1
    place_radius_um: Annotated[float, Field(ge=0, le=1e6)] = 5.0


class RuleSet(StrictModel):
    """A rule file.

    Attributes
    ----------
    dry_run : bool
        Decisions are logged and told, but marked as ones that nobody is to act on.
    limits : RevisitLimits
    rules : tuple of Rule
        Asked in this order.
    """

    dry_run: bool = True
    limits: RevisitLimits = RevisitLimits()
    rules: Annotated[tuple[Rule, ...], Field(min_length=1, max_length=100)]

    @model_validator(mode="after")
    def _own_names(self) -> Self:
        twice = [name for name, count in Counter(rule.name for rule in self.rules).items() if count > 1]
        if twice:
            raise ValueError(f"two rules are named {twice[0]!r}; give each a name of its own")
        return self


def read_rules(path: Path) -> RuleSet:
    """The rules of a TOML file.

    Raises
    ------
    OSError
        If it cannot be read.
    RulesError
        If it is no rule file: names file, key and remedy.
    """
    data = path.read_bytes()
    if len(data) > _MAX_BYTES:
        raise RulesError(f"{path} is larger than a rule file can be")
    try:
        fields = tomllib.loads(data.decode())
    except UnicodeDecodeError as error:
        raise RulesError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise RulesError(f"{path} is not TOML: {error}") from None
    try:
        return RuleSet.model_validate(fields)
    except ValidationError as error:
        told = "; ".join(_fault(one, fields) for one in error.errors(include_url=False)[:5])
        raise RulesError(f"{path}: {told}") from None


def _fault(fault: ErrorDetails, fields: dict[str, Any]) -> str:
    key = _key(fault["loc"], fields)
    kind, given = fault["type"], fault["input"]
    if kind == "extra_forbidden":
        known = _known_keys(fault["loc"][:-1])
        near = difflib.get_close_matches(str(fault["loc"][-1]), known, 1)
        return f"{key}: no such key; " + (f"{near[0]}?" if near else f"known are {', '.join(known)}")
    if kind == "missing":
        return f"{key}: is missing; add it"
    if kind == "string_pattern_mismatch":
        wanted = "a code such as saturated" if "flags_" in key else "1 to 64 characters, no blank at the ends"
        return f"{key}: {given!r:.80} cannot be used; take {wanted}"
    message = fault["msg"].removeprefix("Value error, ")
    shown = f" (not {given!r:.80})" if isinstance(given, str | int | float) else ""
    return f"{key}: {message}{shown}" if key else message


def _key(location: tuple[int | str, ...], fields: dict[str, Any]) -> str:
    """Such as ``rules[1] 'enough'.when.probability``: by place and, where it has one, by name."""
    text = ""
    for n, part in enumerate(location):
        if isinstance(part, int):
            text += f"[{part}]"
            if location[:n] == ("rules",):
                name = fields["rules"][part].get("name") if isinstance(fields["rules"][part], dict) else None
                text += f" {name!r:.66}" if isinstance(name, str) else ""
        else:
            text += f".{part}" if text else part
    return text


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    place = tuple(part for part in location if isinstance(part, str))
    models: dict[tuple[str, ...], type[StrictModel]] = {
        (): RuleSet,
        ("limits",): RevisitLimits,
        ("rules",): Rule,
        ("rules", "when"): Conditions,
    }
    return list(models.get(place, Threshold).model_fields)


def _measure(result: Result, name: Measure) -> float:
    value: float = result.probability if name == "probability" else getattr(result.uncertainty, name)
    return value
