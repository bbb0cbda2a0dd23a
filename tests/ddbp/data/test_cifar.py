"""Binary files of CIFAR."""

import io
import tarfile

import numpy as np
import pytest

from ddbp.data.cifar import read_cifar

RNG = np.random.default_rng(0)


def records(count, *limits):
    """Return records with labels below limits, and what they are."""
    labels = RNG.integers(0, limits, (count, len(limits)), np.uint8)
    pixels = RNG.integers(0, 256, (count, 3, 32, 32), np.uint8)
    flat = np.concatenate([labels, pixels.reshape(count, -1)], axis=1)
    return flat.tobytes(), labels, pixels.transpose(0, 2, 3, 1)


def cifar10(folder, count=3):
    folder.mkdir(parents=True)
    names = [f"data_batch_{number}.bin" for number in range(1, 6)] + ["test_batch.bin"]
    made = [records(count, 10) for _ in names]
    for name, (content, _, _) in zip(names, made, strict=True):
        (folder / name).write_bytes(content)
    (folder / "batches.meta.txt").write_text("\n".join(f"class{n}" for n in range(10)) + "\n\n")
    return made


def packed(folder, archive):
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, folder.name)
    return archive


def test_a_folder_and_its_archive_are_the_same(tmp_path):
    made = cifar10(tmp_path / "cifar-10-batches-bin")
    archive = packed(tmp_path / "cifar-10-batches-bin", tmp_path / "cifar.tar.gz")
    for place in (tmp_path / "cifar-10-batches-bin", archive):
        found = read_cifar(place)
        assert np.array_equal(found.images, np.concatenate([each[2] for each in made[:5]]))
        assert np.array_equal(found.labels, np.concatenate([each[1][:, 0] for each in made[:5]]))
        assert found.classes[3] == "class3"
        assert found.coarse is None
        test = read_cifar(place, "test", kind="cifar10")
        assert np.array_equal(test.images, made[5][2])


def test_cifar_100_has_two_labels(tmp_path):
    content, labels, pixels = records(4, 20, 100)
    (tmp_path / "train.bin").write_bytes(content)
    for place in (tmp_path, tmp_path / "train.bin"):
        found = read_cifar(place)
        assert np.array_equal(found.images, pixels)
        assert np.array_equal(found.labels, labels[:, 1])
        assert np.array_equal(found.coarse, labels[:, 0])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "nothing"),
        (b"\0" * 3072, "whole records of 3,073 bytes; got .*3,072 bytes, 0 records and a rest"),
        (b"\0" * 3073 + b"\x0a" + b"\0" * 3072, "labels must be in 0..9; got .*10 in record 1"),
        (b"\0\x64" + b"\0" * 3072, "labels must be in 0..99; got .*100 in record 0"),
        (b"\0" * 3073 * 3074, "kind must be given"),
    ],
)
def test_damaged_files_are_refused_by_name(tmp_path, content, said):
    file = tmp_path / "x.bin"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=said) as caught:
        read_cifar(file)
    assert str(file) in str(caught.value)


def test_a_set_without_a_file_is_refused(tmp_path):
    cifar10(tmp_path / "c")
    (tmp_path / "c" / "data_batch_4.bin").unlink()
    with pytest.raises(ValueError, match=r"all files of cifar10 .* without data_batch_4\.bin"):
        read_cifar(tmp_path / "c")
    with pytest.raises(ValueError, match=r"must be train\.bin; got .* neither"):
        read_cifar(tmp_path / "c", kind="cifar100")
    (tmp_path / "c" / "train.bin").write_bytes(records(1, 20, 100)[0])
    with pytest.raises(ValueError, match="which has both"):
        read_cifar(tmp_path / "c")
    with pytest.raises(FileNotFoundError):
        read_cifar(tmp_path / "gone")


def test_an_archive_that_is_cut_is_refused(tmp_path):
    cifar10(tmp_path / "c")
    archive = packed(tmp_path / "c", tmp_path / "c.tar.gz")
    whole = archive.read_bytes()
    for cut in (len(whole) - 20, len(whole) // 2, 2000):
        archive.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match=r"and whole; got .*c\.tar\.gz") as caught:
            read_cifar(archive)
        assert "Fetch it again" in str(caught.value)


def test_links_and_paths_in_an_archive_lead_nowhere(tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(records(2, 10)[0])
    archive = tmp_path / "evil.tar"
    with tarfile.open(archive, "w") as tar:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            link = tarfile.TarInfo("test_batch.bin")
            link.type, link.linkname = kind, str(secret)
            tar.addfile(link)
        up = tarfile.TarInfo("../../outside.bin")
        up.size = 4
        tar.addfile(up, io.BytesIO(b"evil"))
    with pytest.raises(ValueError, match="which has neither"):
        read_cifar(archive, "test")
    assert not (tmp_path.parent / "outside.bin").exists()
