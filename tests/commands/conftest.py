"""What the tests of commands share."""

import logging

import pytest


@pytest.fixture(autouse=True)
def silent_handlers(monkeypatch):
    """As under ``main``: a log that cannot be written, such as one that an
    earlier test has left on a closed stream, prints no traceback."""
    monkeypatch.setattr(logging, "raiseExceptions", False)
