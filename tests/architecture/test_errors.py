"""Every named failure keeps the promises that clients and Ray handles rely on."""

from __future__ import annotations

import pickle

import pytest

from models import errors
from models.errors import FieldError, RapportError


def every_error() -> list[type[RapportError]]:
    found, open_ = [], [RapportError]
    while open_:
        cls = open_.pop()
        found.append(cls)
        open_ += cls.__subclasses__()
    # An edge may derive its own, such as what only HTTP knows; this is about the shared tree.
    return sorted((cls for cls in found if cls.__module__ == "models.errors"), key=lambda cls: cls.__name__)


@pytest.mark.parametrize("cls", every_error())
def test_an_error_survives_a_handle(cls: type[RapportError]) -> None:
    """Class, message, fields and retry hint arrive on the other side of a pickle."""
    sent = cls("the message").with_fields(FieldError("/message", "is empty")).with_retry_after(2.0)
    received = pickle.loads(pickle.dumps(sent))  # noqa: S301  # what Ray does with it
    assert type(received) is cls
    assert str(received) == "the message"
    assert received.fields == (FieldError("/message", "is empty"),)
    assert received.retry_after_s == 2.0


def test_codes_name_one_error_each() -> None:
    codes = [cls.code for cls in every_error() if cls is not RapportError and cls is not errors.Internal]
    assert len(codes) == len(set(codes))
    assert all(code == code.upper() and code for code in codes)


@pytest.mark.parametrize("cls", every_error())
def test_the_drawn_tree_names_every_error(cls: type[RapportError]) -> None:
    assert errors.__doc__ is not None
    assert cls.__name__ in errors.__doc__


@pytest.mark.parametrize("cls", every_error())
def test_statuses_are_errors_and_server_faults_are_not_public(cls: type[RapportError]) -> None:
    assert 400 <= cls.status <= 599
    if cls.status in (500, 502, 504):
        assert not cls.public
