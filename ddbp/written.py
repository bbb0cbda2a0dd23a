"""Objects and numbers as configurations, flags and environment variables have them: the calls that
a `repr` shows, and digits of ASCII. `int` and `float` take those of other scripts, underscores and
spaces, too.
"""

import ast
import math
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?"
"""The pattern of a number, in digits of ASCII."""
_INTEGER = re.compile(r"[-+]?\d+", re.ASCII)
_MOST_DIGITS = 19
_INFINITE = ("inf", "+inf", "infinity")
_NUMBER = re.compile(NUMBER, re.ASCII)


def number(text: str) -> int | float:
    """Return the number that a text is, an integer if it has neither a point nor an exponent.

    Raises
    ------
    ValueError
        It is no number in digits of ASCII, or one of too many digits.
    """
    if not _NUMBER.fullmatch(text):
        raise ValueError(text)
    return int(text) if _INTEGER.fullmatch(text) else float(text)


def integer(text: str) -> int:
    """Return the integer that a text is.

    Raises
    ------
    ValueError
        It is none in at most 19 digits of ASCII.
    """
    if not _INTEGER.fullmatch(text) or len(text.lstrip("+-")) > _MOST_DIGITS:
        raise ValueError(text)
    return int(text)


def real(text: str) -> float:
    """Return the number that a text is; "inf" is one, too.

    Raises
    ------
    ValueError
        It is no number in digits of ASCII.
    """
    return math.inf if text.lower() in _INFINITE else float(number(text))


def made(text: Any, kinds: Mapping[str, Callable[..., Any]], refusal: Exception) -> Any:
    """Return the object that a text shows, such as "SGD(0.1, nesterov=True)", made by one of these
    classes; raise `refusal` if it is no call of one with literals that it takes.
    """
    make = _call(text, kinds)
    if make is None:
        raise refusal
    try:
        return make()
    except TypeError as error:
        raise refusal from error


def _call(text: Any, kinds: Mapping[str, Callable[..., Any]]) -> Callable[[], Any] | None:
    try:
        parsed = ast.parse(text, mode="eval").body
        if not (isinstance(parsed, ast.Call) and isinstance(parsed.func, ast.Name)):
            return None
        arguments = [ast.literal_eval(each) for each in parsed.args]
        named = {str(each.arg): ast.literal_eval(each.value) for each in parsed.keywords}
    except (MemoryError, RecursionError, SyntaxError, TypeError, ValueError):
        return None
    kind = kinds.get(parsed.func.id)
    return None if kind is None else partial(kind, *arguments, **named)
