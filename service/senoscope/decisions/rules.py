"""The rule file: conditions on results, actions, and their limits."""

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
    """A rule file is invalid; the message names the key and the remedy."""


class Threshold(StrictModel):
    """A bound on a value, optionally with another bound at which the condition ends (hysteresis)."""

    # Exactly one of them: the value must be greater, or less, than this.
    above: _Fraction | None = None
    below: _Fraction | None = None
    # Once the rule holds, it holds until the value is less (with ``above``) or greater (with ``below``) than
    # this; None: until the value no longer meets the first bound.
    release: _Fraction | None = None

    @model_validator(mode="after")
    def _check_bounds(self) -> Self:
        if (self.above is None) == (self.below is None):
            raise ValueError("needs either above or below, for example { above = 0.8, release = 0.6 }")
        if self.release is None:
            return self
        if self.above is not None and self.release > self.above:
            raise ValueError(f"release must not be more than above ({self.above:g})")
        if self.below is not None and self.release < self.below:
            raise ValueError(f"release must not be less than below ({self.below:g})")
        return self

    def holds(self, value: float, held: bool) -> bool:
        """Return whether a value meets it, given whether the rule held on the previous field of view."""
        if held and self.release is not None:
            return value >= self.release if self.above is not None else value <= self.release
        if self.above is not None:
            return value > self.above
        return self.below is not None and value < self.below

    def describe(self, value: float | None = None, held: bool = False) -> str:
        """Describe the threshold, or how a value meets it."""
        if self.above is not None:
            bound, other = f"above {self.above:g}", "under"
        else:
            bound, other = f"below {self.below:g}", "over"
        if value is None:
            return bound if self.release is None else f"{bound} (until {other} {self.release:g})"
        if held and self.release is not None:
            bound = f"not {other} {self.release:g}"
        return f"{value:.3f} is {bound}"


class Conditions(StrictModel):
    """Conditions on a result; all of them must hold."""

    probability: Threshold | None = None
    entropy: Threshold | None = None
    mutual_information: Threshold | None = None
    agreement: Threshold | None = None
    label: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    flags_present: _Codes = ()  # the result must have all of these
    flags_absent: _Codes = ()  # and none of these

    @model_validator(mode="after")
    def _check_conditions(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("has no condition: the rule would act on every field of view")
        if both := set(self.flags_present) & set(self.flags_absent):
            raise ValueError(f"requires the flag {min(both)} both present and absent")
        return self

    def thresholds(self) -> Iterator[tuple[Measure, Threshold]]:
        """Yield the measures that have a threshold."""
        for name in _MEASURES:
            threshold: Threshold | None = getattr(self, name)
            if threshold is not None:
                yield name, threshold

    def hold(self, result: Result, held: bool) -> bool:
        """Return whether a result meets all, given whether the rule held on the previous field of view."""
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
    """An action and its conditions."""

    name: Annotated[str, Field(pattern=r"^\S(.{0,62}\S)?$")]  # unique in the file; in every decision
    action: Action
    when: Conditions
    # Number of consecutive fields of view of a series on which the conditions must be met.
    running: Annotated[int, Field(ge=1, le=10_000)] = 1

    def describe(self) -> str:
        """Describe the rule."""
        return f"{self.name}: {self.action} when {self.conditions()}"

    def conditions(self, result: Result | None = None, held: bool = False) -> str:
        """Describe all conditions, or how a result meets them."""
        run = f", for {self.running} consecutive fields of view" if self.running > 1 else ""
        return self.when.describe(result, held) + run


class RevisitLimits(StrictModel):
    """Limits of revisits per series, for all rules together."""

    max_revisits: Annotated[int, Field(ge=0, le=10_000)] = 20
    max_revisits_per_place: Annotated[int, Field(ge=0, le=1000)] = 1
    # Stage positions within this distance (x, y) are the same place.
    place_radius_um: Annotated[float, Field(ge=0, le=1e6)] = 5.0


class RuleSet(StrictModel):
    """A rule file."""

    # Decisions are logged and published, but marked as a dry run: no program may act on them.
    dry_run: bool = True
    limits: RevisitLimits = RevisitLimits()
    rules: Annotated[tuple[Rule, ...], Field(min_length=1, max_length=100)]  # evaluated in this order

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        twice = [name for name, count in Counter(rule.name for rule in self.rules).items() if count > 1]
        if twice:
            raise ValueError(f"two rules are named {twice[0]!r}; use unique names")
        return self


def read_rules(path: Path) -> RuleSet:
    """Read the rules of a TOML file.

    Raises
    ------
    OSError
        If the file cannot be read.
    RulesError
        If it is not a valid rule file. The message names file, key and remedy.
    """
    data = path.read_bytes()
    if len(data) > _MAX_BYTES:
        raise RulesError(f"{path} is larger than a rule file may be")
    try:
        fields = tomllib.loads(data.decode())
    except UnicodeDecodeError as error:
        raise RulesError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise RulesError(f"{path} is not TOML: {error}") from None
    try:
        return RuleSet.model_validate(fields)
    except ValidationError as error:
        problems = "; ".join(_describe(one, fields) for one in error.errors(include_url=False)[:5])
        raise RulesError(f"{path}: {problems}") from None


def _describe(fault: ErrorDetails, fields: dict[str, Any]) -> str:
    key = _key(fault["loc"], fields)
    kind, given = fault["type"], fault["input"]
    if kind == "extra_forbidden":
        known = _known_keys(fault["loc"][:-1])
        near = difflib.get_close_matches(str(fault["loc"][-1]), known, 1)
        remedy = f"did you mean {near[0]}?" if near else f"valid keys are {', '.join(known)}"
        return f"{key}: unknown key; {remedy}"
    if kind == "missing":
        return f"{key}: missing; add it"
    if kind == "string_pattern_mismatch":
        valid = "a code such as saturated" if "flags_" in key else "1 to 64 characters, no blank at the ends"
        return f"{key}: {given!r:.80} is invalid; use {valid}"
    message = fault["msg"].removeprefix("Value error, ")
    shown = f" (not {given!r:.80})" if isinstance(given, str | int | float) else ""
    return f"{key}: {message}{shown}" if key else message


def _key(location: tuple[int | str, ...], fields: dict[str, Any]) -> str:
    """Return a location as text, for example ``rules[1] 'enough'.when.probability``."""
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
