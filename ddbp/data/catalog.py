"""The named data sets: what they are, and where their files lie with which digests.

Sizes and SHA-256 of MNIST, Fashion-MNIST, KMNIST, CIFAR and Tiny Shakespeare are those of the
checksum files of TensorFlow Datasets (github.com/tensorflow/datasets, tensorflow_datasets/
url_checksums: mnist.txt, fashion_mnist.txt, kmnist.txt, cifar10.txt, cifar100.txt,
tiny_shakespeare.txt); those of the first three stand in torchvision's prototypes as well
(torchvision/prototype/datasets/_builtin/mnist.py). TensorFlow Datasets has no text8: its SHA-256 is
what several projects that download it state independently of each other, with its size.
"""

from typing import NamedTuple

from .download import RemoteFile


class ImageSet(NamedTuple):
    """A set of images: rows and columns, channels, and the names of its classes, if its files do
    not have them.
    """

    size: tuple[int, int]
    channels: int
    classes: tuple[str, ...]


DIGITS = tuple("0123456789")

IMAGES = {
    "digits": ImageSet((8, 8), 1, DIGITS),
    "mnist5k": ImageSet((28, 28), 1, DIGITS),
    "mnist": ImageSet((28, 28), 1, DIGITS),
    "fashion_mnist": ImageSet(
        (28, 28),
        1,
        (
            *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt"),
            *("Sneaker", "Bag", "Ankle boot"),
        ),
    ),
    "kmnist": ImageSet((28, 28), 1, ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")),
    "cifar10": ImageSet((32, 32), 3, ()),
    "cifar100": ImageSet((32, 32), 3, ()),
}
"""Fashion-MNIST's names are those of github.com/zalandoresearch/fashion-mnist, KMNIST's those of
codh.rois.ac.jp/kmnist.
"""

SERIES = {
    "japanese_vowels": "JapaneseVowels",
    "basic_motions": "BasicMotions",
    "gun_point": "GunPoint",
    "arrow_head": "ArrowHead",
    "italy_power_demand": "ItalyPowerDemand",
    "osu_leaf": "OSULeaf",
    "acsf1": "ACSF1",
    "pickup_gesture_wiimote_z": "PickupGestureWiimoteZ",
    "covid_3_month": "Covid3Month",
    "cardano_sentiment": "CardanoSentiment",
}
"""Folders of aeon's wheel. The last two have numbers to predict, the others classes."""

TEXTS = ("tiny_shakespeare", "text8")

_CHAR_RNN = "https://raw.githubusercontent.com/karpathy/char-rnn/master"
_MNIST_NAMES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)


def _like_mnist(
    mirrors: tuple[str, ...], facts: tuple[tuple[int, str], ...]
) -> tuple[RemoteFile, ...]:
    """Return four files named as MNIST's, of their sizes and digests."""
    return tuple(
        RemoteFile(name, size, digest, tuple(f"{mirror}/{name}" for mirror in mirrors))
        for name, (size, digest) in zip(_MNIST_NAMES, facts, strict=True)
    )


FILES: dict[str, tuple[RemoteFile, ...]] = {
    "mnist": _like_mnist(
        (
            "https://storage.googleapis.com/cvdf-datasets/mnist",
            "https://ossci-datasets.s3.amazonaws.com/mnist",
        ),
        (
            (9912422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
            (28881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
            (1648877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
            (4542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
        ),
    ),
    "fashion_mnist": _like_mnist(
        (
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion",
        ),
        (
            (26421880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
            (29515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
            (4422102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
            (5148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
        ),
    ),
    "kmnist": _like_mnist(
        (
            "https://codh.rois.ac.jp/kmnist/dataset/kmnist",
            "http://codh.rois.ac.jp/kmnist/dataset/kmnist",
        ),
        (
            (18165135, "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4"),
            (29497, "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17"),
            (3041136, "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5"),
            (5120, "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c"),
        ),
    ),
    "cifar10": (
        RemoteFile(
            "cifar-10-binary.tar.gz",
            170052171,
            "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            (
                "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
                "https://cave.cs.toronto.edu/kriz/cifar-10-binary.tar.gz",
            ),
        ),
    ),
    "cifar100": (
        RemoteFile(
            "cifar-100-binary.tar.gz",
            168513733,
            "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
            (
                "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
                "https://cave.cs.toronto.edu/kriz/cifar-100-binary.tar.gz",
            ),
        ),
    ),
    "tiny_shakespeare": (
        RemoteFile(
            "tiny_shakespeare.txt",
            1115394,
            "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
            (f"{_CHAR_RNN}/data/tinyshakespeare/input.txt",),
        ),
    ),
    "text8": (
        RemoteFile(
            "text8.zip",
            31344016,
            "a6640522afe85d1963ad56c05b0ede0a0c000dddc9671758a6cc09b7a38e5232",
            (
                "https://mattmahoney.net/dc/text8.zip",
                "http://mattmahoney.net/dc/text8.zip",
                "https://data.deepai.org/text8.zip",
            ),
        ),
    ),
}
