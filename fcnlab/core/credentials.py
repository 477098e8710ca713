"""Keeps passwords in URLs out of logs, parameters, tags and artifacts."""

from __future__ import annotations

import re

# By the standard, a URL's authority ends at the first of /?#, and its password at the last @ before that. Some clients
# also take a password with an unescaped /, ? or #, so what follows the first colon counts as one unless it is a port.
_USER = r"""[^\s/?#@:\[\]"'`<>]"""
_CREDENTIALS = re.compile(
    r"://(?<=\w://)(?:"
    rf"(?P<user>{_USER}*:)(?!\d*(?:[/?#\"'`<>\s]|\Z))(?P<password>[^\s/?#]*|\S{{0,256}})@"
    rf"|(?P<token>{_USER}+)@)"
)
_QUERY = re.compile(r"""([?&]\w*(?:passw(?:or)?d|pwd|token|secret|api_?key)=)[^\s&#"'`<>]+""", re.IGNORECASE)


def redact(text: str) -> str:
    """Replace every password in a URL by ``***``; nothing else changes.

    Passwords stand in ``scheme://user:password@host``, ``scheme://token@host`` and parameters such as ``?password=``.
    A password may hold any character but a blank. One that has digits before a ``/``, ``?`` or ``#`` must be
    percent-encoded, as the standard demands, since it cannot be told from a port.
    """
    text = _CREDENTIALS.sub(lambda match: f"://{match['user'] or ''}***@", text)
    return _QUERY.sub(r"\1***", text)


def has_password(uri: str) -> bool:
    """Whether a URI holds a password or a token; a user's name alone counts as a token in the URL of a web server."""
    uri = "".join(uri.split())  # a database's password may hold blanks
    if re.match(r"(?:mssql|mysql|postgresql)(?:\+\w+)?://[^:/]*:[^@]+@", uri):  # as SQLAlchemy reads it
        return True
    web = re.match(r"(?:\w+\+)?https?://", uri)
    credentials = any(match["password"] or (web and match["token"]) for match in _CREDENTIALS.finditer(uri))
    return credentials or _QUERY.search(uri) is not None
