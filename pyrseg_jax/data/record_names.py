"""Names of pairs in stored files: a file name need not be valid UTF-8, but JSON, CSV and TFDS take nothing else."""

import urllib.parse

# A name of a pair never begins with a slash, so no usual name can look like this.
_MARK = "/bytes:"


def to_stored(name: str) -> str:
    """Return a name as valid UTF-8: usual names stay as they are, and others become their bytes as in a URL."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return _MARK + urllib.parse.quote(name, errors="surrogateescape")
    return name


def from_stored(text: str) -> str:
    """Return the name that `to_stored` was given."""
    if not text.startswith(_MARK):
        return text
    return urllib.parse.unquote(text.removeprefix(_MARK), errors="surrogateescape")
