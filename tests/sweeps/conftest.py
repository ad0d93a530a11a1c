"""What the tests of several engines need."""

import pytest
from sweeps.processes import Orders


@pytest.fixture
def orders(tmp_path, monkeypatch):
    given = Orders(tmp_path)
    for name, value in given.environment.items():
        monkeypatch.setenv(name, value)
    return given
