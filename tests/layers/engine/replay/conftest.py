"""What the tests of replayed steps share."""

import pytest


@pytest.fixture
def ordinary(monkeypatch):
    """Return a function that runs another one with all steps ordinary."""

    def run(function):
        with monkeypatch.context() as context:
            context.setenv("LAYERS_REPLAY", "0")
            result = function()
        assert result.replayed == 0
        return result

    return run
