"""Messages of errors: `<Owner>: <what must hold>; got <value>. <likely fix>`."""

import functools
import re
from collections.abc import Callable
from typing import Any, ClassVar, NoReturn, ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def message(owner: Any, must: str, got: Any, fix: str) -> str:
    """Return the text of an error: who refuses, what must hold, what was got and what would mend
    it. Ellipses are three dots, which terminals of all encodings show.
    """
    name = owner if isinstance(owner, str) else repr(owner)
    return f"{name}: {must}; got {got}. {fix}".replace("…", "...")


_WORDED = re.compile(r"[^\s:][^:]*: .+; got .*\. .+", re.DOTALL)
_KINDS = (MemoryError, TypeError, ValueError)


def is_worded(error: Exception) -> bool:
    """Return whether an error is in our words."""
    return _WORDED.fullmatch(str(error)) is not None


def worded(owner: Any, error: Exception) -> Exception:
    """Return an error that NumPy, Numba or Python has raised because of what `owner` was given, in
    the words of ours; one of ours, or of a user's class, as it is.
    """
    foreign = type(error).__module__.partition(".")[0] in ("builtins", "numpy", "numba")
    if not foreign or is_worded(error):
        return error
    kind = next((each for each in _KINDS if isinstance(error, each)), None)
    if kind is None:
        kind = ValueError if isinstance(error, ArithmeticError | LookupError) else TypeError
    text = " ".join(str(error).split()) or type(error).__name__
    fix = "Its documentation says what each may be."
    return kind(message(owner, "the arguments must be ones that it can take", text, fix))


def wording(owner: str) -> Callable[[Callable[Arguments, Result]], Callable[Arguments, Result]]:
    """Have a function of `owner` raise what NumPy, Numba or Python raises in our words."""

    def decorate(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
        @functools.wraps(function)
        def called(*arguments: Arguments.args, **options: Arguments.kwargs) -> Result:
            try:
                return function(*arguments, **options)
            except Exception as error:
                ours = worded(owner, error)
                if ours is error:
                    raise
                raise ours from error

        return called

    return decorate


def noting(where: object, function: Callable[..., Result], *arguments: Any) -> Result:
    """Return what a function returns for the arguments; an error that it raises gets a note of
    where that was.
    """
    try:
        return function(*arguments)
    except Exception as error:
        error.add_note(f"This was in {where!r}.")
        raise


def renamed(**names: str) -> Callable[[Callable[Arguments, Result]], Callable[Arguments, Result]]:
    """Have a function refuse keywords of before 1.0: each with what it is called now, old="new"."""

    def decorate(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
        @functools.wraps(function)
        def refusing(*arguments: Arguments.args, **options: Arguments.kwargs) -> Result:
            for old in names.keys() & options.keys():
                made = function.__name__ == "__init__"
                owner = type(arguments[0]).__name__ if made else function.__name__
                fix = f"Write {names[old]}={options[old]!r}."
                must = f"the argument `{old}` is now called `{names[old]}`"
                raise TypeError(message(owner, must, f"{old}={options[old]!r}", fix))
            return function(*arguments, **options)

        return refusing

    return decorate


class Renamed:
    """An attribute under its name of before 1.0: whoever reads or sets it is told the new one."""

    names: ClassVar[dict[str, str]] = {}
    """The new name of every such attribute, by the old one."""

    def __init__(self, new: str) -> None:
        self.new = new

    def __set_name__(self, owner: type, name: str) -> None:
        self.old = name
        self.names[name] = self.new

    def __get__(self, instance: Any, owner: type) -> Any:
        return self if instance is None else self._refuse(owner)

    def __set__(self, instance: Any, value: Any) -> None:
        self._refuse(type(instance))

    def _refuse(self, owner: type) -> NoReturn:
        must = f"the attribute `{self.old}` is now called `{self.new}`"
        fix = f"Write .{self.new}."
        raise AttributeError(message(owner.__name__, must, f".{self.old}", fix))
