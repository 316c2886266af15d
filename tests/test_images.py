"""Fashion-MNIST's files and folders of images, from small ones that the tests make."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import socket
import threading

import numpy as np
import pytest
from files import idx
from PIL import Image

import nnx
from nnx import fashion_mnist

NAMES = list(fashion_mnist.FASHION_MNIST_FILES)


@pytest.fixture
def arrays(rng):
    return [
        rng.integers(0, 256, (5, 28, 28), np.uint8),
        np.arange(5, dtype=np.uint8),
        rng.integers(0, 256, (3, 28, 28), np.uint8),
        np.array([9, 0, 1], np.uint8),
    ]


@pytest.fixture
def folder(tmp_path, arrays):
    inside = tmp_path / "fashion-mnist"
    inside.mkdir()
    for name, array in zip(NAMES, arrays, strict=True):
        (inside / name).write_bytes(gzip.compress(idx(array)))
    return inside


def check(found, arrays):
    for array, expected in zip(found, arrays, strict=True):
        np.testing.assert_array_equal(array, expected)
        assert array.dtype == np.uint8
        assert array.flags.writeable


def test_fashion_mnist_is_read_from_the_folder_that_is_named(folder, arrays):
    check(nnx.load_fashion_mnist(folder), arrays)
    check(nnx.load_fashion_mnist(str(folder)), arrays)


def test_fashion_mnist_is_read_from_its_folder_below_nnx_data_home(folder, arrays, monkeypatch):
    monkeypatch.setenv("NNX_DATA_HOME", str(folder.parent))
    check(nnx.load_fashion_mnist(), arrays)


def test_without_nnx_data_home_it_is_the_users_cache_folder(folder, arrays, monkeypatch):
    monkeypatch.delenv("NNX_DATA_HOME", raising=False)
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name, appauthor: str(folder.parent))
    check(nnx.load_fashion_mnist(), arrays)


def test_a_missing_file_is_named_with_the_folder_and_the_remedy(folder):
    (folder / NAMES[3]).unlink()
    with pytest.raises(FileNotFoundError) as error:
        nnx.load_fashion_mnist(folder)
    assert str(error.value).startswith(f"load_fashion_mnist: '{NAMES[3]}' is not in '{folder}'. ")
    assert "download=True" in str(error.value)
    assert "--download" in str(error.value)


GOOD = idx(np.zeros((5, 28, 28), np.uint8))
BAD = {
    "cut off": (gzip.compress(GOOD)[:-30], "is cut off"),
    "empty": (b"", "is no IDX file of bytes in 3 dimensions"),
    "not compressed": (GOOD, "is no gzip file, or is damaged"),
    "damaged": (gzip.compress(GOOD)[:20] + b"\xff\xff\xff" + gzip.compress(GOOD)[23:], "damaged"),
    "other dimensions": (gzip.compress(idx(np.zeros(5))), "is no IDX file of bytes in 3 dimensions"),
    "short inside": (gzip.compress(GOOD[:-1]), "it says that it holds 3,920 bytes, but holds 3,919"),
    "long inside": (gzip.compress(GOOD + b"\0"), "it says that it holds 3,920 bytes, but holds more"),
    "a large shape": (
        gzip.compress(GOOD[:4] + b"\0\0\2\0" * 2 + b"\0\0\1\0"),  # 64 MB in a file of a few bytes
        "it cannot hold the 67,108,864 bytes",
    ),
    "a huge shape": (
        gzip.compress(GOOD[:4] + b"\xff" * 12),
        "it cannot hold the 79,228,162,458,924,105,385,300,197,375 bytes",
    ),
    "a web page": (b"<!DOCTYPE html>", "is no gzip file, or is damaged"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_wrong_file_is_named_with_what_is_wrong_and_the_remedy(folder, case):
    content, reason = BAD[case]
    (folder / NAMES[0]).write_bytes(content)
    with pytest.raises(nnx.DataFileError) as error:
        nnx.load_fashion_mnist(folder)
    assert str(error.value).startswith(f"load_fashion_mnist: {str(folder / NAMES[0])!r} ")
    assert reason in str(error.value)
    assert "Delete it and download it again: nnx train fashion-mnist --download, or " in str(error.value)


def test_files_that_do_not_belong_together_are_refused(folder):
    (folder / NAMES[1]).write_bytes(gzip.compress(idx(np.zeros(4))))
    with pytest.raises(nnx.DataFileError, match=r"holds 4 labels for the 5 images of "):
        nnx.load_fashion_mnist(folder)
    (folder / NAMES[1]).write_bytes(gzip.compress(idx(np.zeros(5))))
    (folder / NAMES[2]).write_bytes(gzip.compress(idx(np.zeros((3, 14, 28)))))
    with pytest.raises(nnx.DataFileError, match=r"holds images of 14 × 28 pixels, '.*' of 28 × 28"):
        nnx.load_fashion_mnist(folder)


def test_labels_that_are_no_classes_and_empty_files_are_refused(folder):
    (folder / NAMES[1]).write_bytes(gzip.compress(idx(np.array([0, 1, 2, 3, 10]))))
    with pytest.raises(nnx.DataFileError, match=r"holds the label 10, and there are 10 classes\."):
        nnx.load_fashion_mnist(folder)
    (folder / NAMES[0]).write_bytes(gzip.compress(idx(np.zeros((0, 28, 28)))))
    with pytest.raises(nnx.DataFileError, match=r"holds no images\."):
        nnx.load_fashion_mnist(folder)


# Downloads, from a server on this machine


@pytest.fixture
def server(folder, monkeypatch):
    """Serve the folder's files as the public address does, which are then the right ones."""
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(folder))

        def do_GET(self):
            asked.append(self.path)
            super().do_GET()

        def log_message(self, *arguments):
            pass

    service = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=service.serve_forever)
    thread.start()
    monkeypatch.setattr(fashion_mnist, "FASHION_MNIST_ADDRESS", f"http://127.0.0.1:{service.server_port}/")
    sums = {name: hashlib.md5((folder / name).read_bytes()).hexdigest() for name in NAMES}
    monkeypatch.setattr(fashion_mnist, "FASHION_MNIST_FILES", sums)
    yield asked
    service.shutdown()
    thread.join()
    service.server_close()


def test_download_fetches_what_is_missing_or_damaged_and_shows_a_bar(server, arrays, tmp_path, capsys):
    target = tmp_path / "new" / "folder"
    check(nnx.load_fashion_mnist(target, download=True), arrays)
    assert len(server) == 4
    assert sorted(path.name for path in target.iterdir()) == sorted(NAMES)
    assert NAMES[0] in capsys.readouterr().err
    (target / NAMES[1]).write_bytes(b"damaged")
    (target / NAMES[2]).unlink()
    check(nnx.load_fashion_mnist(target, download=True), arrays)
    assert server[4:] == [f"/{NAMES[1]}", f"/{NAMES[2]}"]
    nnx.load_fashion_mnist(target, download=True)
    assert len(server) == 6


def test_a_download_of_another_file_is_not_kept(server, folder, tmp_path):
    (folder / NAMES[0]).write_bytes(b"something else")
    target = tmp_path / "new"
    target.mkdir()
    (target / NAMES[0]).write_bytes(b"older")
    with pytest.raises(OSError, match=r"could not be fetched from http://127.* \(it came with the md5 sum "):
        nnx.load_fashion_mnist(target, download=True)
    assert [path.name for path in target.iterdir()] == [NAMES[0]]
    assert (target / NAMES[0]).read_bytes() == b"older"


def test_a_failed_download_is_one_error_and_leaves_nothing(server, folder, tmp_path):
    (folder / NAMES[1]).unlink()
    with pytest.raises(
        OSError, match=rf"load_fashion_mnist: '.*{NAMES[1]}' could not be fetched from .*File not found"
    ):
        nnx.load_fashion_mnist(tmp_path / "new", download=True)
    assert [path.name for path in (tmp_path / "new").iterdir()] == [NAMES[0]]


def test_a_server_that_is_not_there_is_one_error(tmp_path, monkeypatch):
    monkeypatch.setattr(fashion_mnist, "FASHION_MNIST_ADDRESS", "http://127.0.0.1:9/")
    with pytest.raises(OSError, match=r"could not be fetched from http://127\.0\.0\.1:9/"):
        nnx.load_fashion_mnist(tmp_path, download=True)


@pytest.mark.parametrize(
    "answer",
    [
        b"nonsense",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nhi",
    ],
)
def test_a_server_that_talks_nonsense_is_one_error(tmp_path, monkeypatch, answer):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setattr(fashion_mnist, "FASHION_MNIST_ADDRESS", f"http://127.0.0.1:{listener.getsockname()[1]}/")

        def serve():
            connection, _ = listener.accept()
            with connection:
                connection.recv(10_000)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(ConnectionError, match=r"could not be fetched from http://127"):
            nnx.load_fashion_mnist(tmp_path, download=True)
        thread.join()
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_leaves_no_half_of_a_download(server, tmp_path, monkeypatch):
    def interrupted(self, length):
        raise KeyboardInterrupt

    monkeypatch.setattr("tqdm.tqdm.update", interrupted)
    with pytest.raises(KeyboardInterrupt):
        nnx.load_fashion_mnist(tmp_path / "new", download=True)
    assert list((tmp_path / "new").iterdir()) == []


# Folders of images


def write(folder, layout):
    for name, pixels in layout.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(pixels, np.uint8)).save(path)


@pytest.fixture
def pictures(tmp_path, rng):
    """Make a folder in the book's layout; return it with the pixels by path."""
    layout = {
        f"{part}/{label}/{number:04}.png": rng.integers(0, 256, (4, 3))
        for part, n_each in (("train", 2), ("test", 1))
        for label in (0, 1, 2, 10)
        for number in range(n_each)
    }
    write(tmp_path, layout)
    return tmp_path, layout


def test_an_image_folder_is_read_class_by_class(pictures):
    folder, layout = pictures
    (folder / "train" / "0" / ".hidden").write_text("no image")
    X, y, X_test, y_test = nnx.load_image_folder(folder)
    assert X.shape == (8, 4, 3)
    assert X.dtype == y.dtype == np.uint8
    assert y.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]  # in the order of the numbers: 10 comes last
    assert y_test.tolist() == [0, 1, 2, 3]
    np.testing.assert_array_equal(X, [pixels for path, pixels in layout.items() if path.startswith("train")])
    np.testing.assert_array_equal(X_test, [pixels for path, pixels in layout.items() if path.startswith("test")])


def test_classes_may_have_names_and_images_colours(tmp_path, rng):
    colours = rng.integers(0, 256, (2, 2, 3))
    write(tmp_path, {"train/dog/a.png": colours, "train/cat/b.png": colours, "test/dog/c.png": colours})
    X, y, _, y_test = nnx.load_image_folder(str(tmp_path))
    assert X.shape == (2, 2, 2, 3)
    assert y.tolist() == [0, 1]
    assert y_test.tolist() == [1]
    np.testing.assert_array_equal(X[0], colours)


@pytest.mark.parametrize(
    ("mode", "shape"), [("1", ()), ("L", ()), ("LA", ()), ("P", (3,)), ("RGB", (3,)), ("RGBA", (3,)), ("CMYK", (3,))]
)
def test_images_of_eight_bits_become_grey_or_coloured(tmp_path, mode, shape):
    for part in ("train", "test"):
        path = tmp_path / part / "0" / f"a.{'tif' if mode == 'CMYK' else 'png'}"
        path.parent.mkdir(parents=True)
        Image.new("RGB", (5, 4), (255, 255, 255)).convert("RGBA").convert(mode).save(path)
    (tmp_path / "train" / ".git").mkdir()
    (tmp_path / "train" / "notes.txt").write_text("no class")
    X, y, *_ = nnx.load_image_folder(tmp_path)
    assert X.shape == (1, 4, 5, *shape)
    assert (X == 255).all()
    assert y.tolist() == [0]


def test_photographs_are_turned_upright(tmp_path):
    for part in ("train", "test"):
        (tmp_path / part / "0").mkdir(parents=True)
        exif = Image.Exif()
        exif[0x0112] = 6  # the camera was held on its side
        Image.new("L", (5, 4)).save(tmp_path / part / "0" / "a.jpg", exif=exif)
    assert nnx.load_image_folder(tmp_path)[0].shape == (1, 5, 4)


def test_class_numbers_have_eight_bits(tmp_path):
    for part in ("train", "test"):
        for name in range(257):
            (tmp_path / part / str(name)).mkdir(parents=True)
    with pytest.raises(nnx.DataFileError, match=r"train' must hold at most 256 classes, got 257\."):
        nnx.load_image_folder(tmp_path)


def test_images_of_more_bits_are_refused(tmp_path):
    write(tmp_path, {"test/0/a.png": np.zeros((4, 4))})
    (tmp_path / "train" / "0").mkdir(parents=True)
    Image.fromarray(np.arange(16, dtype=np.uint16).reshape(4, 4) * 4096).save(tmp_path / "train" / "0" / "deep.png")
    with pytest.raises(nnx.DataFileError, match=r"deep\.png' must have pixels of 8 bits, got mode I"):
        nnx.load_image_folder(tmp_path)


def test_an_image_that_is_too_large_is_refused(pictures, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2)
    with pytest.raises(nnx.DataFileError, match=r"0000\.png' is too large\."):
        nnx.load_image_folder(pictures[0])


def test_what_is_wrong_with_an_image_folder_is_named(pictures, tmp_path):
    folder, _ = pictures
    with pytest.raises(FileNotFoundError, match=r"load_image_folder: there is no folder '.*nowhere/train'\."):
        nnx.load_image_folder(folder / "nowhere")
    odd = folder / "train" / "1" / "odd.png"
    write(folder, {"train/1/odd.png": np.zeros((2, 2))})
    with pytest.raises(
        nnx.DataFileError, match=r"odd\.png' must be of shape \(4, 3\) as the first image is, got \(2, 2\)"
    ):
        nnx.load_image_folder(folder)
    odd.write_text("no image")
    with pytest.raises(nnx.DataFileError, match=r"odd\.png' is no image\."):
        nnx.load_image_folder(folder)
    odd.write_bytes((folder / "train" / "1" / "0000.png").read_bytes()[:50])
    with pytest.raises(nnx.DataFileError, match=r"odd\.png' (cannot be read|is no image)"):
        nnx.load_image_folder(folder)
    odd.unlink()
    write(folder, {"test/7/0.png": np.zeros((4, 3))})
    with pytest.raises(nnx.DataFileError, match=r"test' holds the class '7', which '.*train' lacks\."):
        nnx.load_image_folder(folder)
    empty = tmp_path / "empty"
    for part in ("train", "test"):
        (empty / part / "0").mkdir(parents=True)
    with pytest.raises(nnx.DataFileError, match=r"train' holds no images\."):
        nnx.load_image_folder(empty)


def test_without_pillow_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    with pytest.raises(ImportError, match=r"python -m pip install 'nnx-core\[images\]'"):
        nnx.load_image_folder(tmp_path)
