"""Messages of errors: `<Owner>: <what must hold>; got <value>. <likely fix>`."""

from collections.abc import Callable
from typing import Any, TypeVar

Result = TypeVar("Result")


def message(owner: Any, must: str, got: Any, fix: str) -> str:
    """Return the text of an error: who refuses, what must hold, what was got and what would mend
    it.
    """
    name = owner if isinstance(owner, str) else repr(owner)
    return f"{name}: {must}; got {got}. {fix}"


def require_floating(owner: Any, x: Any) -> None:
    """Refuse an input that is not of a floating type."""
    if x.dtype.kind not in "fc":
        raise TypeError(
            message(
                owner,
                "the input must be of a floating type",
                x.dtype,
                "Convert it with x.astype(np.float32).",
            )
        )


def require_images(owner: Any, x: Any) -> None:
    """Refuse what cannot be floating images (N, H, W, C)."""
    require_floating(owner, x)
    if x.ndim != 4:
        fix = (
            "Add the missing axes with reshape; channels come last: x.transpose(0, 2, 3, 1) turns"
            " (N, C, H, W) into (N, H, W, C)."
        )
        raise ValueError(message(owner, "the input must have shape (N, H, W, C)", x.shape, fix))


def noting(where: object, function: Callable[..., Result], *arguments: Any) -> Result:
    """Return what a function returns for the arguments; an error that it raises gets a note of
    where that was.
    """
    try:
        return function(*arguments)
    except Exception as error:
        error.add_note(f"This was in {where!r}.")
        raise
