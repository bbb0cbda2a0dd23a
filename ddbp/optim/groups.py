"""Parameter groups: which parameters have options of their own, by patterns of their names."""

import inspect
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from layers import Parameter
from layers.checks import is_number
from layers.errors import message

from .schedule import as_schedule

if TYPE_CHECKING:
    from .optimizer import Optimizer

Patterns = str | tuple[str, ...]
Groups = Mapping[Patterns, Mapping[str, Any]]
"""Options of an optimizer by patterns of dotted names, such as "head.*" or ("*.bias", "*.gain")."""

_SHOWN = 8
"""Names that an error shows at most."""


def option_names(optimizer: "Optimizer") -> list[str]:
    """Return the names of the options that an optimizer is made with."""
    return [*inspect.signature(type(optimizer)).parameters]


def changed(optimizer: "Optimizer", changes: Mapping[str, Any]) -> "Optimizer":
    """Return an optimizer made alike, but for those of the changes that are options of it: see
    `Optimizer.with_options`.
    """
    names = {*option_names(optimizer), "schedule"}
    return optimizer.with_options(**{n: value for n, value in changes.items() if n in names})


def made(optimizer: "Optimizer", groups: Mapping[Patterns, Any]) -> "list[Optimizer]":
    """Return an optimizer for each group: made as this one, but for the options of the group.

    Raises
    ------
    TypeError
        The groups are no mapping of patterns to options.
    ValueError
        An option is unknown or out of range.
    """
    owner = type(optimizer).__name__
    example = 'groups={"head.*": {"learning_rate": 1e-2}}.'
    # All groups have their moments in the same arrays.
    names = [name for name in option_names(optimizer) if name not in ("groups", "state_bits")]
    result = []
    for pattern, options in groups.items():
        if not isinstance(options, Mapping):
            must = f"the options of group {pattern!r} must be a dictionary"
            raise TypeError(message(owner, must, repr(options), f"Write {example}"))
        for name in options:
            if name not in names:
                must = f"options of group {pattern!r} must be those of {owner}"
                raise ValueError(message(owner, must, repr(name), f"It has {', '.join(names)}."))
        result.append(again(optimizer, options))
    return result


def again(optimizer: "Optimizer", options: Mapping[str, Any]) -> "Optimizer":
    """Return an optimizer made as this one, but for some options, and without groups unless these
    are among them.
    """
    names = [name for name in option_names(optimizer) if name != "groups"]
    arguments = {
        name: optimizer.given if name == "learning_rate" else getattr(optimizer, name)
        for name in names
    }
    return type(optimizer)(**{**arguments, **options})


def otherwise(optimizer: "Optimizer", changes: Mapping[str, Any]) -> "Optimizer":
    """Do what `Optimizer.with_options` does."""
    groups: Groups = optimizer.groups
    base = optimizer.given.base_rate
    given = as_schedule(changes.get("schedule", optimizer.given) or base)
    options = {"learning_rate": given, **changes}
    options.pop("schedule", None)
    rate: Any = options["learning_rate"]
    if is_number(rate):
        options["learning_rate"] = given.with_base_rate(rate)
        groups = times(groups, rate / base) if base else groups
    return again(optimizer, {"groups": groups, **options} if groups else options)


def times(groups: Groups, factor: float) -> Groups:
    """Return groups whose own learning rates are multiplied by a factor."""
    result: dict[Patterns, Mapping[str, Any]] = {}
    for pattern, options in groups.items():
        if "learning_rate" in options:
            schedule = as_schedule(options["learning_rate"])
            changed = schedule.with_base_rate(factor * schedule.base_rate)
            options = {**options, "learning_rate": changed}
        result[pattern] = options
    return result


def checked(owner: str, groups: Any) -> dict[Patterns, Mapping[str, Any]]:
    """Return groups as a dictionary, which must have patterns as keys."""
    example = 'Write groups={"head.*": {"learning_rate": 1e-2}}.'
    if not isinstance(groups, Mapping):
        must = "groups must be a dictionary of options by patterns of parameters' names"
        raise TypeError(message(owner, must, repr(groups), example))
    for pattern in groups:
        if not all(isinstance(each, str) for each in _patterns(pattern)):
            must = "the keys of groups must be patterns of parameters' names, or tuples of them"
            raise TypeError(message(owner, must, repr(pattern), example))
    return dict(groups)


def numbers(
    optimizer: "Optimizer", members: "Sequence[Optimizer]", named: Mapping[str, Parameter]
) -> dict[str, int]:
    """Return by name the number of the group of each parameter, 0 where it is in none.

    Raises
    ------
    ValueError
        A pattern matches no parameter, a parameter is in two groups, or a group sets a weight
        decay, and has no parameter to which it applies.
    """
    owner = type(optimizer).__name__
    result = dict.fromkeys(named, 0)
    keys = list(optimizer.groups)
    for number, (key, member) in enumerate(zip(keys, members, strict=True), 1):
        for pattern in _patterns(key):
            matching = [name for name in named if fnmatchcase(name, pattern)]
            if not matching:
                must = f"the pattern {pattern!r} of groups must match the name of a parameter"
                raise ValueError(message(owner, must, "none", f"There are {_some(named)}."))
            for name in matching:
                if result[name] not in (0, number):
                    must = "a parameter must be in one group"
                    got = f"{name} in {keys[result[name] - 1]!r} and in {key!r}"
                    fix = "Make one of the patterns narrower."
                    raise ValueError(message(owner, must, got, fix))
                result[name] = number
        if member.weight_decay and "weight_decay" in optimizer.groups[key]:
            _require_regularized(
                owner, key, [named[name] for name in named if result[name] == number]
            )
    return result


def _require_regularized(owner: str, key: Patterns, parameters: Sequence[Parameter]) -> None:
    """Refuse a weight decay for parameters that have none."""
    if not any(parameter.regularized for parameter in parameters):
        must = f"weight_decay of group {key!r} must apply to a parameter"
        fix = "Set parameter.regularized = True where they shall decay, or leave it out."
        raise ValueError(message(owner, must, "only biases and gains", fix))


def _patterns(key: Any) -> tuple[Any, ...]:
    return key if isinstance(key, tuple) else (key,)


def _some(names: Mapping[str, Any]) -> str:
    """Return the first names."""
    shown = list(names)[:_SHOWN]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
