"""Passwords in URLs are found, and no other text is taken for one."""

import string
import time

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sqlalchemy import make_url

from fcnlab.core.credentials import has_password, redact

PLAIN = string.ascii_letters + string.digits + "._~-"
USERS = st.text(PLAIN, min_size=1, max_size=10)
HOSTS = st.text(string.ascii_lowercase + string.digits + ".-", min_size=1, max_size=10)
SCHEMES = st.sampled_from(["http", "https", "postgresql", "mysql+pymysql", "git+https", "redis"])
# All visible characters, with punctuation and other alphabets.
PASSWORDS = st.text(st.characters(exclude_categories=["Z", "C"]), min_size=1, max_size=20)
PROSE = st.text(PLAIN + " \n,;:()[]{}@'\"", max_size=20)


def is_well_defined(password):
    """Whether no client could read it as a port and a path, or as a host."""
    port = not password.lstrip(string.digits) or password.lstrip(string.digits)[0] in "/?#\"'`<>"
    return not port and not ("@" in password and set(password) & set("/?#"))


@settings(deadline=None)
@given(st.lists(st.tuples(PROSE, SCHEMES, st.just("") | USERS, PASSWORDS, HOSTS), max_size=4), PROSE)
def test_passwords_go_and_nothing_else_changes(parts, end):
    assume(all(is_well_defined(password) for *_, password, _ in parts))
    text = "".join(f"{prose} {scheme}://{user}:{word}@{host}/x " for prose, scheme, user, word, host in parts)
    expected = "".join(f"{prose} {scheme}://{user}:***@{host}/x " for prose, scheme, user, _, host in parts)
    assert redact(text + end) == expected + end
    assert redact(expected + end) == expected + end


@settings(deadline=None)
@given(SCHEMES, USERS, HOSTS)
def test_a_token_goes(scheme, token, host):
    assert (
        redact(f"pip install {scheme}://{token}@{host}/o/r.git@v1") == f"pip install {scheme}://***@{host}/o/r.git@v1"
    )


@settings(deadline=None)
@given(SCHEMES, HOSTS, st.none() | st.integers(1, 65535), st.text(PLAIN + "@/:=&?#'\"[]", max_size=20), PROSE)
def test_a_url_without_a_password_stays(scheme, host, port, path, after):
    assume("?" not in path and "&" not in path)
    text = f"see {scheme}://{host}{'' if port is None else f':{port}'}/{path} {after}"
    assert redact(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "git@github.com:owner/repository.git",
        "sqlite:////home/a:b@c/mlflow.db",
        "http://[::1]:5000/x@y",
        '{"uri":"http://host","mail":"me@host"}',
        '{"uri":"http://host:80","mail":"me@host"}',
        "http://host/a?user=me&page=2",
        "a: b@c //d:e@f",
    ],
)
def test_what_only_looks_like_a_password_stays(text):
    assert redact(text) == text
    assert not has_password(text)


def test_a_password_among_the_parameters_goes():
    uri = "postgresql://host/db?user=me&password=se%20cret&sslmode=require and https://host/x?access_token=abc#top"
    assert redact(uri) == (
        "postgresql://host/db?user=me&password=***&sslmode=require and https://host/x?access_token=***#top"
    )


def test_a_long_text_is_quick():
    for text in ("x://a:b" * 200_000, "a" * 2**20, "?a" * 2**19, "://" * 2**18):
        began = time.perf_counter()
        redact(text)
        assert time.perf_counter() - began < 30


@settings(deadline=None)
@given(
    st.sampled_from(["postgresql", "mysql+pymysql"]), USERS, st.none() | st.text(PLAIN + "/#? '\"", max_size=9), HOSTS
)
def test_a_database_has_a_password_where_sqlalchemy_finds_one(scheme, user, password, host):
    assume(not (password and not password.strip()))
    uri = f"{scheme}://{user}{'' if password is None else ':' + password}@{host}/db"
    assert has_password(uri) == bool(make_url(uri).password)


def test_a_web_servers_token_is_a_password():
    assert has_password("https://token@host")
    assert has_password("https://user:secret@host:5000/mlflow")
    assert has_password("postgresql://host/db?password=secret")
    for uri in ("https://host:5000/mlflow", "sqlite:///mlflow.db", "postgresql://user@host/db", "mlruns", "databricks"):
        assert not has_password(uri)
