"""States of preprocessing, of anybody's making."""

import copy
import json

import pytest

from ddbp.data.images import ImageReader
from ddbp.data.kinds import preprocessing
from ddbp.data.series import SeriesReader
from ddbp.data.table_encoder import TableEncoder
from ddbp.data.text import TextEncoder

TABLE = {"x": [1, 2, 3, 4], "k": ["a", "b", "a", "b"], "y": [0, 1, 0, 1]}
STATES = [
    ImageReader((4, 5), 1, mean=[0.5], std=[0.25], classes=("a", "b")).state(),
    SeriesReader([0.0], [1.0], classes=("a", "b")).state(),
    SeriesReader([0.0], [1.0], target=(1.0, 2.0)).state(),
    TableEncoder.fit(TABLE, target="y").state(),
    TextEncoder.characters("abc", unknown=True).state(),
    TextEncoder.words("a b").state(),
    TextEncoder.bytes(classes=("a", "b")).state(),
]
HOSTILE = (
    *(None, True, -1, 0, 1, 7, 2**63, 10**400, 1.5, float("inf"), float("nan")),
    *("", "x", "../x", "a\0b", "\ud800", [], {}, [None], [[1]], {"a": 1}, ["a", "a"], [0] * 100),
)


def test_states_are_json_and_come_back():
    for state in STATES:
        assert preprocessing(json.loads(json.dumps(state))).state() == state


def places(tree, here=()):
    """Yield the places in a state."""
    yield here
    if isinstance(tree, dict | list) and tree:
        for key in tree if isinstance(tree, dict) else (0, len(tree) - 1):
            yield from places(tree[key], (*here, key))


def changed(tree, place, new):
    result = copy.deepcopy(tree)
    part = result
    for key in place[:-1]:
        part = part[key]
    if new is KeyError:
        del part[place[-1]]
    else:
        part[place[-1]] = new
    return result


def test_damaged_states_are_refused_in_our_words():
    count = 0
    for state in STATES:
        for place in [*places(state)][1:]:
            for new in (KeyError, *HOSTILE):
                count += 1
                try:
                    made = preprocessing(changed(state, place, new))
                except (ValueError, TypeError) as error:
                    assert "; got " in str(error), (place, new)  # noqa: PT017
                else:
                    # What is believed is another state, which comes back as well.
                    again = made.state()
                    assert preprocessing(again).state() == again
    assert count > 1000


@pytest.mark.parametrize("given", [None, 3, "x", [], {}, {"kind": "x"}, {"kind": 3}])
def test_what_is_no_state_is_refused(given):
    with pytest.raises((ValueError, TypeError), match=r"preprocessing: .*; got "):
        preprocessing(given)


def test_a_state_of_another_kind_or_version_is_refused():
    state = STATES[0]
    with pytest.raises(ValueError, match='kind must be "text"; got images'):
        TextEncoder.from_state(state)
    with pytest.raises(ValueError, match="version must be 1; got 2"):
        preprocessing({**state, "version": 2})


def test_labels_are_numbers_of_classes():
    reader = ImageReader(4, classes=("a", "b"))
    assert reader.labels(["b", "a"]).tolist() == [1, 0]
    with pytest.raises(ValueError, match="labels must be among a, b; got here: c"):
        reader.labels(["c"], ["here"])
    with pytest.raises(ValueError, match="there must be names of classes"):
        ImageReader(4).predictions([[1.0]])
