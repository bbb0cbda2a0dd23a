"""Texts in other encodings than UTF-8, and what mends them."""

_BINARY = {chr(code) for code in range(32)} - {*"\t\n\v\f\r\x1a\x1b"}


def mend_of(text: str) -> str:
    """Return the advice for a text that is none of UTF-8, decoded with surrogates for the bytes
    that are none: of UTF-16 every second byte is 0, and no text has control characters.
    """
    marks = ("\udcff\udcfe", "\udcfe\udcff")
    zeros = text.count("\0")
    if text.startswith(marks) or (zeros and len(text) <= 3 * zeros):
        return "Save it as UTF-8, or convert it: iconv -f utf-16 -t utf-8."
    if not _BINARY.isdisjoint(text):
        return "This is no text: check the path."
    known = "Save it as UTF-8, or convert it from its encoding, which must be known"
    return f"{known} (`file -i` guesses): iconv -f latin1 -t utf-8 if it is latin1."


def undecoded(text: str) -> bool:
    """Return whether a text has surrogates for bytes that are none of UTF-8."""
    return not text.isascii() and any("\udc80" <= letter <= "\udcff" for letter in text)
