"""Messages of errors: `<Owner>: <what must hold>; got <value>. <likely fix>`."""

from typing import Any


def message(owner: Any, must: str, got: Any, fix: str) -> str:
    """Return the text of an error: who refuses, what must hold, what was got and what would mend it."""
    name = owner if isinstance(owner, str) else repr(owner)
    return f"{name}: {must}; got {got}. {fix}"


def require_floating(owner: Any, x: Any) -> None:
    """Refuse an input that is not of a floating type."""
    if x.dtype.kind not in "fc":
        raise TypeError(message(owner, "the input must be of a floating type", x.dtype, "Convert it with x.astype(np.float32)."))
