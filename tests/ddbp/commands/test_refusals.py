"""What commands advise: flags that they have."""

from argparse import Namespace

import pytest

from ddbp.commands.refusals import in_flags

TRAIN = Namespace(
    **dict.fromkeys(("ignore", "categories", "numbers", "dates", "task", "unknown", "augment")),
    skip_bad=False,
    validation=0.2,
)
PREDICT = Namespace(skip_bad=False)


@pytest.mark.parametrize(("advice", "of_train", "of_predict"), [
    ("Mend it. skip_bad=True leaves it out.", "Mend it. --skip-bad leaves it out.",
     "Mend it. --skip-bad leaves it out."),
    ('Mend it, or write roles={"große 1": "category"}.',
     "Mend it, or write --categories 'große 1'.", "Mend it."),
    ('Mend it, write roles={"a": "category"}, or skip_bad=True.',
     "Mend it, write --categories a, or --skip-bad.", "Mend it, or --skip-bad."),
    ('Write roles={"a": "ignore"}, or "category" if it is one.',
     "Write --ignore a, or --categories a if it is one.", ""),
    ('Add rows, or write task="regression".', "Add rows, or write --task regression.", "Add rows."),
    ('Or write task="classification". skip_bad=True leaves it out.',
     "Or write --task classification. --skip-bad leaves it out.", "--skip-bad leaves it out."),
    ("Change roles.", "Name fewer columns in --ignore.", ""),
    ("Use larger fractions, or leave out stratified.",
     "Take a larger --validation, or more data.", ""),
    ("Write augment=[Flip(), Crop(4)], of ddbp.data.augment.",
     'Write --augment "Flip(), Crop(4)", or --augment none.', ""),
    ("Check the path.", "Check the path.", "Check the path."),
])  # fmt: skip
def test_advice_is_in_the_flags_of_the_command(advice, of_train, of_predict):
    # What must hold is as it was, and so is what was got.
    beginning = 'x: roles={"a": "ignore"} must hold; got 3'
    for options, expected in ((TRAIN, of_train), (PREDICT, of_predict)):
        assert in_flags(f"{beginning}. {advice}", options) == f"{beginning}. {expected}".rstrip()
