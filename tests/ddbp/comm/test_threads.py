"""What a process that uses one core of several advises."""

import sys
from types import SimpleNamespace

import pytest

from ddbp.comm import threads


@pytest.mark.parametrize(("arguments", "module", "command"), [
    (["train.py", "--epochs", "3"], None, "ddbp launch train.py --epochs 3"),
    (["/usr/bin/ddbp", "train", "images", "--data", "my images"], None,
     "ddbp launch -m ddbp train images --data 'my images'"),
    (["/lib/ddbp/__main__.py", "train", "text"], "ddbp.__main__", "ddbp launch -m ddbp train text"),
    (["/home/ada/lab/fit.py"], "lab.fit", "ddbp launch -m lab.fit"),
])  # fmt: skip
def test_the_advice_is_the_command_with_its_arguments(monkeypatch, arguments, module, command):
    monkeypatch.setattr(threads, "available_cores", lambda: 4)
    monkeypatch.setattr(sys, "argv", arguments)
    spec = module and SimpleNamespace(name=module)
    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(__spec__=spec))
    advice = threads.advise_other_cores()
    assert f"`{command}`" in advice
