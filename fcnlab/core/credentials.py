"""Passwords in URLs: none of them reaches a log, a parameter, a tag or an artifact."""

from __future__ import annotations

import re

# Up to the first of /?# a URL's authority is what its standard says, with the password up to the last @. Some clients
# take a password with one of /?# unescaped too, so that what follows the first colon and is no port counts as one.
_USER = r"""[^\s/?#@:\[\]"'`<>]"""
_CREDENTIALS = re.compile(
    r"://(?<=\w://)(?:"
    rf"(?P<user>{_USER}*:)(?!\d*(?:[/?#\"'`<>\s]|\Z))(?P<password>[^\s/?#]*|\S{{0,256}})@"
    rf"|(?P<token>{_USER}+)@)"
)
_QUERY = re.compile(r"""([?&]\w*(?:passw(?:or)?d|pwd|token|secret|api_?key)=)[^\s&#"'`<>]+""", re.IGNORECASE)


def redact(text: str) -> str:
    """Put ``***`` in the place of every password in a URL; nothing else changes.

    That is ``scheme://user:password@host``, ``scheme://token@host`` and parameters such as ``?password=``. A password
    may hold any character but a blank; one of digits before ``/``, ``?`` or ``#`` must be percent-encoded, as the
    standard demands, since it cannot be told from a port.
    """
    text = _CREDENTIALS.sub(lambda match: f"://{match['user'] or ''}***@", text)
    return _QUERY.sub(r"\1***", text)


def has_password(uri: str) -> bool:
    """Whether a URI holds a password or token. A user's name alone is neither, but to a web server it is a token."""
    uri = "".join(uri.split())  # a database's password may hold blanks
    if re.match(r"(?:mssql|mysql|postgresql)(?:\+\w+)?://[^:/]*:[^@]+@", uri):  # as SQLAlchemy reads it
        return True
    web = re.match(r"(?:\w+\+)?https?://", uri)
    credentials = any(match["password"] or (web and match["token"]) for match in _CREDENTIALS.finditer(uri))
    return credentials or _QUERY.search(uri) is not None
