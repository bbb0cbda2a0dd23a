"""Estimators that stay as they are where what they are given is refused."""

import functools
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

_OF_TRAINER = "_trainer", "_training"
Arguments = ParamSpec("Arguments")
Estimator = TypeVar("Estimator")


def unless_refused(
    method: Callable[Concatenate[Estimator, Arguments], Estimator],
) -> Callable[Concatenate[Estimator, Arguments], Estimator]:
    """Have a method that raises an error leave the attributes of its estimator as they were, but
    for the trainer of a network that is still there: another may have moved its parameters since.
    """

    @functools.wraps(method)
    def called(
        self: Estimator, /, *arguments: Arguments.args, **options: Arguments.kwargs
    ) -> Estimator:
        attributes: dict[str, Any] = vars(self)
        before = dict(attributes)
        try:
            return method(self, *arguments, **options)
        except Exception:
            now = dict(attributes)
            attributes.clear()
            attributes.update(before)
            if now.get("model_") is before.get("model_"):
                attributes.update((name, now[name]) for name in _OF_TRAINER if name in now)
            raise

    return called
