"""Text: vocabularies, windows and labelled lines."""

import gzip
import json
import random

import numpy as np
import pytest

from ddbp.data.kinds import preprocessing
from ddbp.data.lines import read_lines, read_text
from ddbp.data.text import TextEncoder
from ddbp.data.text_windows import TextWindows

TEXT = "To be, or not to be: that is the question.\nWhether 'tis nobler in the mind — ☺"


def encoders(text=TEXT):
    yield TextEncoder.characters(text)
    yield TextEncoder.characters(text, unknown=True)
    yield TextEncoder.bytes()
    yield TextEncoder.words(text)
    pytest.importorskip("tokenizers", reason="tokenizers is not installed: ddbp[text]")
    yield TextEncoder.bpe(text, 300)


def test_a_text_comes_back_of_its_tokens():
    for encoder in encoders():
        tokens = encoder.encode(TEXT)
        assert tokens.dtype == np.int64
        assert 0 <= tokens.min() <= tokens.max() < len(encoder)
        back = encoder.decode(tokens)
        if encoder.unit == "words":
            assert back.split()[:6] == ["To", "be", ",", "or", "not", "to"]
        else:
            assert back == TEXT


def test_an_encoder_comes_back_from_json_and_encodes_the_same():
    for encoder in encoders():
        again = preprocessing(json.loads(json.dumps(encoder.state())))
        assert again == encoder
        assert again.tokens == encoder.tokens
        assert np.array_equal(again.encode(TEXT), encoder.encode(TEXT))


def test_characters_are_in_the_order_of_their_code_points():
    encoder = TextEncoder.characters(["bca", "é a"])
    assert encoder.tokens == [" ", "a", "b", "c", "é"]
    assert encoder.encode("cab é").tolist() == [3, 1, 2, 0, 4]


def test_words_are_those_that_are_most_frequent():
    encoder = TextEncoder.words("b a c b a b d", 4)
    assert encoder.tokens == ["<unknown>", "b", "a", "c"]
    assert encoder.encode("a d <unknown> b").tolist()[-1] == 1
    assert encoder.decode(encoder.encode("a d b")) == "a <unknown> b"


def test_bpe_learns_the_same_from_the_same_text():
    pytest.importorskip("tokenizers", reason="tokenizers is not installed: ddbp[text]")
    texts = ["a rose is a rose is a rose", TEXT]
    assert TextEncoder.bpe(texts, 280) == TextEncoder.bpe(texts, 280)
    assert len(TextEncoder.bpe(texts, 280).encode(texts[0])) < len(texts[0])


def test_what_the_vocabulary_does_not_have_is_refused_or_unknown():
    with pytest.raises(
        ValueError, match=r"characters must be among the 2 .*; got 'z' at character 1, line 1"
    ):
        TextEncoder.characters("ab").encode("az")
    with pytest.raises(
        ValueError, match=r"words must be among the 2 .*; got 'c' at word 2, line 1"
    ):
        TextEncoder.words("a b", unknown=False).encode("a b c")
    assert TextEncoder.characters("ab", unknown=True).encode("azb☺").tolist() == [1, 0, 2, 0]
    assert TextEncoder.words("a b").encode("a c").tolist() == [1, 0]


def test_several_texts_are_ragged():
    encoder = TextEncoder.characters("abc", classes=("x", "y"))
    found = encoder.transform(["a", "bca"])
    assert found.lengths.tolist() == [1, 3]
    assert found.values.tolist() == [0, 1, 2, 0]
    assert encoder.transform("cab").tolist() == [2, 0, 1]
    with pytest.raises(ValueError, match="every text must have a token; got none in text 1"):
        encoder.transform(["a", ""])


@pytest.mark.parametrize(
    "call",
    [
        lambda: TextEncoder.characters(""),
        lambda: TextEncoder.characters([]),
        lambda: TextEncoder.characters(b"abc"),
        lambda: TextEncoder.characters([1]),
        lambda: TextEncoder.words("  "),
        lambda: TextEncoder.words("a", 1),
        lambda: TextEncoder.words("a", 10**12),
        lambda: TextEncoder.bpe("a", 5),
        lambda: TextEncoder.bytes(classes=("a",)),
        lambda: TextEncoder.bytes().encode(b"x"),
        lambda: TextEncoder.bytes().decode([256]),
        lambda: TextEncoder.bytes().decode([[1]]),
        lambda: TextEncoder.bytes().decode([0.5]),
        lambda: TextEncoder.bytes().transform(3),
    ],
)
def test_arguments_that_do_not_fit_are_refused(call):
    with pytest.raises((ValueError, TypeError), match="; got "):
        call()


def test_any_text_is_written_in_bytes_and_pairs():
    rng = random.Random(0)
    for encoder in encoders():
        if encoder.unit in ("bytes", "bpe"):
            for _ in range(50):
                text = "".join(
                    chr(rng.choice((rng.randrange(0xD800), 10, 0x1F600))) for _ in "12345"
                )
                assert encoder.decode(encoder.encode(text)) == text


# Windows.


def test_windows_are_told_one_token_further():
    windows = TextWindows(np.arange(11), 3)
    assert len(windows) == 3
    rows = windows.take(np.array([2, 0]))
    assert rows.x.tolist() == [[6, 7, 8], [0, 1, 2]]
    assert rows.y.tolist() == [[7, 8, 9], [1, 2, 3]]


@pytest.mark.parametrize("tokens", range(4, 30))
@pytest.mark.parametrize("stride", [1, 2, 3, 5])
def test_every_window_is_whole_and_none_is_left_out(tokens, stride):
    windows = TextWindows(np.arange(tokens), 3, stride)
    rows = windows.take(np.arange(len(windows)))
    assert rows.x.shape == rows.y.shape == (len(windows), 3)
    assert (len(windows) * stride) + 3 + 1 > tokens


def test_a_file_is_encoded_part_by_part_and_mapped(tmp_path, monkeypatch):
    monkeypatch.setattr("ddbp.data.text._PART", 7)
    file = tmp_path / "text"
    text = "eins zwei\ndrei vier\nfünf\n" * 5
    file.write_text(text, encoding="utf-8")
    encoder = TextEncoder.characters(text)
    tokens = encoder.encode_file(file, tmp_path / "tokens.npy")
    assert isinstance(tokens, np.memmap)
    assert tokens.dtype == np.uint8
    assert np.array_equal(tokens, encoder.encode(text))
    windows = TextWindows(tmp_path / "tokens.npy", 4, encoder=encoder)
    assert isinstance(windows.tokens, np.memmap)
    assert encoder.decode(windows.take(np.array([1])).x[0]) == text[4:8]
    assert windows.preprocessing is encoder


def test_tokens_that_are_none_are_refused(tmp_path):
    (tmp_path / "x.npy").write_bytes(b"no array")
    for tokens, length in (
        (np.zeros(5), 2),
        (np.zeros((5, 5), int), 2),
        (np.zeros(5, int), 5),
        (np.zeros(5, int), 0),
        (tmp_path / "x.npy", 2),
    ):
        with pytest.raises(ValueError, match="; got "):
            TextWindows(tokens, length)


# Files.


def test_lines_have_labels_and_texts(tmp_path):
    for pack in (bytes, gzip.compress):
        (tmp_path / "x").write_bytes(pack("\ufeffb\tgood\tday\r\n\na\tbad\n".encode()))
        lines = read_lines(tmp_path / "x")
        assert lines.texts == ("good\tday", "bad")
        assert lines.labels == ("b", "a")
        assert lines.classes == ("a", "b")
    data = TextEncoder.characters(lines.texts, classes=lines.classes).dataset(lines)
    assert data.y.tolist() == [1, 0]
    assert data.x.lengths.tolist() == [8, 3]


@pytest.mark.parametrize("line", [b"none", b"\ttext", b"b\t", b"b\t  ", b"b\t\xff\xfe"])
def test_lines_without_label_or_text_are_named_or_left_out(tmp_path, line):
    (tmp_path / "x").write_bytes(b"a\tone\n" + line + b"\nb\ttwo\n")
    with pytest.raises(ValueError, match="x, line 2: "):
        read_lines(tmp_path / "x")
    lines = read_lines(tmp_path / "x", skip_bad=True)
    assert lines.texts == ("one", "two")
    assert [each.place[-6:] for each in lines.skipped] == ["line 2"]


def test_files_that_are_no_text_are_refused(tmp_path):
    file = tmp_path / "x"
    file.write_bytes(b"ab\xff")
    with pytest.raises(ValueError, match=r"a text must be UTF-8; got .*x, whose byte 2 is 0xff"):
        read_text(file)
    with pytest.raises(ValueError, match="a text must be UTF-8"):
        TextEncoder.bytes().encode_file(file, tmp_path / "t.npy")
    assert not (tmp_path / "t.npy").exists()
    file.write_bytes(gzip.compress(b"a" * 999)[:-3])
    with pytest.raises(ValueError, match="must be whole"):
        read_text(file)
    file.write_text("a\tone\na\ttwo\n")
    with pytest.raises(ValueError, match="two labels or more; got a alone"):
        read_lines(file)
    file.write_text("")
    with pytest.raises(ValueError, match="there must be a line"):
        read_lines(file)


def test_what_is_strange_to_a_vocabulary_is_found_in_its_place(tmp_path):
    characters, words = TextEncoder.characters("ab\n"), TextEncoder.words("a b", unknown=False)
    assert characters.strange("ab\ncaé") == [3, 5]
    assert words.strange("a cd, b") == [2, 3, 4]
    for knowing in (TextEncoder.characters("a", unknown=True), TextEncoder.bytes()):
        assert knowing.strange("é\u2028") == []
    with pytest.raises(ValueError, match=r"got 'cd' at word 2, line 2"):
        words.encode("a b\ncd")
    file = tmp_path / "long.txt"
    # Longer than what is encoded at a time.
    file.write_text("ab\n" * 400_000 + "abc\n")
    with pytest.raises(ValueError, match=r"got .*long\.txt, line 400001\. Take"):
        characters.encode_file(file, tmp_path / "tokens.npy")
    assert not (tmp_path / "tokens.npy").exists()


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_may_end_as_on_any_system(tmp_path, end):
    file = tmp_path / "lines.txt"
    file.write_bytes("".join(f"{label}\tit is{end}" for label in ("a", "b", "a")).encode())
    found = read_lines(file)
    assert found.labels == ("a", "b", "a")
    assert found.texts == ("it is",) * 3
