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
from nnx.cli import main
from nnx.data import fashion_mnist

pytestmark = pytest.mark.one_backend

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
    "empty": (b"", "is not an IDX file of bytes in 3 dimensions"),
    "not compressed": (GOOD, "is not a gzip file, or is damaged"),
    "damaged": (gzip.compress(GOOD)[:20] + b"\xff\xff\xff" + gzip.compress(GOOD)[23:], "damaged"),
    "other dimensions": (gzip.compress(idx(np.zeros(5))), "is not an IDX file of bytes in 3 dimensions"),
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
    "a web page": (b"<!DOCTYPE html>", "is not a gzip file, or is damaged"),
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
    with pytest.raises(OSError, match=r"could not be fetched from http://127.* \(its md5 sum is "):
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
    with pytest.raises(nnx.DataFileError, match=r"0000\.png' is too large: images may have 2 pixels"):
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
    with pytest.raises(nnx.DataFileError, match=r"odd\.png' is not an image\."):
        nnx.load_image_folder(folder)
    odd.write_bytes((folder / "train" / "1" / "0000.png").read_bytes()[:50])
    with pytest.raises(nnx.DataFileError, match=r"odd\.png' (cannot be read|is not an image)"):
        nnx.load_image_folder(folder)
    odd.unlink()
    write(folder, {"test/7/0.png": np.zeros((4, 3))})
    with pytest.raises(nnx.DataFileError, match=r"test' holds the class '7', which '.*train' lacks\."):
        nnx.load_image_folder(folder)
    (folder / "test" / "7" / "0.png").unlink()
    (folder / "test" / "7").rmdir()
    (folder / "train" / "1" / "more").mkdir()
    with pytest.raises(nnx.DataFileError, match=r"train/1' must hold only images, got the folder 'more' in it\."):
        nnx.load_image_folder(folder)
    empty = tmp_path / "empty"
    for part in ("train", "test"):
        (empty / part / "0").mkdir(parents=True)
    with pytest.raises(nnx.DataFileError, match=r"train' holds no images\."):
        nnx.load_image_folder(empty)


def test_without_pillow_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    images = nnx.Images(2, 2, ["a", "b"])
    for reads in (nnx.load_image_folder, nnx.load_images, images.read_inputs, images.read_samples):
        with pytest.raises(ImportError, match=r"python -m pip install 'nnx-core\[images\]'"):
            reads(tmp_path)


# Images: what a model keeps of them


def grey(*shades):
    """Return a grey image of two by two pixels."""
    return np.array(shades, np.uint8).reshape(2, 2)


@pytest.fixture
def shades(tmp_path, rng):
    """Make a folder of dark and light images, ten of each."""
    folder = tmp_path / "shades"
    write(folder, {f"dark/{n}.png": rng.integers(0, 100, (2, 2)) for n in range(10)})
    write(folder, {f"light/{n}.png": rng.integers(150, 256, (2, 2)) for n in range(10)})
    return folder


def test_images_scale_pixels_and_give_them_back(rng):
    images = nnx.Images(2, 2, ["a", "b"])
    np.testing.assert_array_equal(images.inputs([grey(0, 255, 51, 204)]), np.float32([[-1, 1, -0.6, 0.6]]))
    pixels = rng.integers(0, 256, (5, 2, 3, 3), np.uint8)
    coloured = nnx.Images(2, 3, ["a", "b"], colour=True, mean=100, scale=20)
    assert (coloured.shape, coloured.n_inputs, coloured.n_outputs) == ((2, 3, 3), 18, 2)
    np.testing.assert_array_equal(coloured.pixels(coloured.inputs(pixels)), pixels)
    assert coloured.inputs(pixels).dtype == nnx.get_default_dtype()
    np.testing.assert_array_equal(nnx.Images(1, 1, ["a", "b"]).pixels([[-9], [9]]).ravel(), [0, 255])
    with pytest.raises(ValueError, match=r"^Images\.inputs: pixels must have shape \(n, 2, 2\), got \(2, 2\)\.$"):
        images.inputs(grey(1, 2, 3, 4))


def test_fashion_mnists_scaling_is_that_of_the_books(arrays):
    X = arrays[0]
    expected = (X.reshape(len(X), -1).astype(np.float32) - 127.5) / 127.5
    np.testing.assert_array_equal(nnx.Images(28, 28, nnx.FASHION_MNIST_CLASSES).inputs(X), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"height": 0}, "Images: height must be a whole number from 1 to "),
        ({"width": True}, "Images: width must be a whole number, got True"),
        (
            {"height": 1 << 13, "width": 1 << 13},
            r"Images: height \* width must be at most 16,777,216, got 8192",
        ),
        ({"colour": 1}, "Images: colour must be True or False, got 1"),
        ({"mean": float("nan")}, "Images: mean must be "),
        ({"scale": 0}, "Images: scale must be "),
        ({"scale": 1e-300}, "Images: scale must be "),
        ({"classes": "ab"}, "Images: classes must be a list of names, got one text"),
        ({"classes": ["a"]}, "Images: classes must be 2 to 1,000 different names, got 1: a"),
        ({"classes": ["a", "a"]}, "Images: classes must be 2 to 1,000 different names, got 2: a, a"),
        ({"classes": ["a", 1]}, "Images: each of classes must be text, got 1"),
    ],
)
def test_images_that_cannot_be_are_refused(change, message):
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        nnx.Images(**{"height": 2, "width": 2, "classes": ["a", "b"], **change})


def test_outputs_are_decoded_to_class_names():
    images = nnx.Images(2, 2, ["a", "b"])
    assert images.decode([[0.9, 0.1], [0.2, 0.8]]).tolist() == ["a", "b"]
    assert images.decode([[0.9], [0.2]]).tolist() == ["b", "a"]
    with pytest.raises(ValueError, match=r"^Images\.decode: outputs must have shape \(n, 2\), got \(1, 3\)\.$"):
        images.decode([[1, 2, 3]])
    with pytest.raises(ValueError, match=r"^Images\.decode: outputs must be finite numbers, got \[nan, 0"):
        images.decode([[1, 2], [np.nan, 0]])


def test_a_folder_of_images_is_split_class_by_class_and_read_again(shades):
    X, y, X_test, y_test, images = nnx.load_images(shades, test_size=0.3, seed=4)
    assert images.classes == ("dark", "light")
    assert (images.shape, images.mean, images.scale) == ((2, 2), 127.5, 127.5)
    assert np.bincount(y).tolist() == [7, 7]
    assert np.bincount(y_test).tolist() == [3, 3]
    X_all, y_all = images.read_samples(shades)
    assert sorted(map(bytes, X_all)) == sorted(map(bytes, np.concatenate([X, X_test])))
    assert y_all.tolist() == [0] * 10 + [1] * 10
    again = nnx.load_images(shades, test_size=0.3, seed=4)
    np.testing.assert_array_equal(X_test, again[2])
    assert not np.array_equal(X_test, nnx.load_images(shades, test_size=0.3, seed=5)[2])
    assert [len(part) for part in nnx.load_images(shades)[:4]] == [16, 16, 4, 4]
    assert len(nnx.load_images(shades, test_size=0)[2]) == 0


def test_of_each_class_an_image_at_least_is_tested_and_one_is_kept(tmp_path):
    write(tmp_path, {f"a/{n}.png": grey(n, 0, 0, 0) for n in range(2)} | {"b/0.png": grey(0, 0, 0, 9)})
    *_, y, _, y_test, _ = (None, *nnx.load_images(tmp_path))
    assert (y.tolist(), y_test.tolist()) == ([0, 1], [0])


def test_classes_are_in_natural_order_and_the_folders_own_test_part_is_used(pictures):
    folder, layout = pictures
    _, y, X_test, y_test, images = nnx.load_images(folder)
    assert images.classes == ("0", "1", "2", "10")
    assert (y.tolist(), y_test.tolist()) == ([0, 0, 1, 1, 2, 2, 3, 3], [0, 1, 2, 3])
    np.testing.assert_array_equal(images.pixels(X_test)[3], layout["test/10/0000.png"])
    np.testing.assert_array_equal(images.read_samples(folder)[0], X_test)
    with pytest.raises(ValueError, match=r"^load_images: test_size must be None, as '.*' holds the folders train and"):
        nnx.load_images(folder, test_size=0.5)
    assert len(nnx.load_images(folder / "train", test_size=0)[0]) == 8


def test_colours_are_kept_if_any_image_has_them(tmp_path):
    red = np.full((2, 2, 3), [255, 0, 0])
    write(tmp_path, {"a/0.png": red, "b/0.png": grey(0, 0, 0, 255)})
    X, *_, images = nnx.load_images(tmp_path, test_size=0)
    assert images.shape == (2, 2, 3)
    assert images.pixels(X)[0, 0, 0].tolist() == [255, 0, 0]
    assert images.pixels(X)[1, 1].tolist() == [[0, 0, 0], [255, 255, 255]]
    X, *_, images = nnx.load_images(tmp_path, test_size=0, colour=False)
    assert images.pixels(X)[0].tolist() == [[76, 76], [76, 76]]


def test_images_of_another_size_are_resized_with_a_warning(tmp_path, shades):
    *_, images = nnx.load_images(shades)
    Image.new("L", (6, 4), 255).save(tmp_path / "large.png")
    write(tmp_path, {"fits.png": grey(0, 0, 0, 0)})
    with pytest.warns(UserWarning, match=r"^Images\.read_inputs: 1 of 2 images resized to 2 × 2 pixels, the first one "
                      r"from 4 × 6: '.*large\.png'\.$"):  # fmt: skip
        X = images.read_inputs([tmp_path / "fits.png", str(tmp_path / "large.png")])
    assert X.tolist() == [[-1] * 4, [1] * 4]


def test_images_of_many_sizes_or_large_ones_become_small_squares_with_a_warning(shades):
    Image.new("L", (6, 4), 255).save(shades / "light" / "large.png")
    with pytest.warns(UserWarning, match=r"^load_images: the images have 2 different sizes and are resized to 32 × 32"):
        assert nnx.load_images(shades)[4].shape == (32, 32)
    assert nnx.load_images(shades, size=(5, 7))[4].shape == (5, 7)  # no warning: it was asked for
    large = shades.parent / "large"
    for name in ("a", "b"):
        (large / name).mkdir(parents=True)
        Image.new("L", (65, 20), 255).save(large / name / "0.png")
    with pytest.warns(UserWarning, match=r"^load_images: the images have 20 × 65 pixels and are resized to 32 × 32"):
        nnx.load_images(large)
    for size in (32, (3,), "ab", (0, 3), (1.5, 2)):
        with pytest.raises((TypeError, ValueError), match=r"^load_images: (size|height|width) must be"):
            nnx.load_images(large, size=size)


def test_what_is_wrong_with_a_folder_of_classes_is_named(shades, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^load_images: there is no folder '.*nowhere'\. path must be"):
        nnx.load_images(tmp_path / "nowhere")
    with pytest.raises(nnx.DataFileError, match=r"dark' must hold a folder for each class"):
        nnx.load_images(shades / "dark")
    (tmp_path / "one").mkdir()
    shades.rename(tmp_path / "one" / "shades")
    with pytest.raises(nnx.DataFileError, match=r"must hold two classes or more, got shades\."):
        nnx.load_images(tmp_path / "one")
    (tmp_path / "one" / "other").mkdir()
    with pytest.raises(nnx.DataFileError, match=r"shades' must hold only images, got the folder 'dark' in it"):
        nnx.load_images(tmp_path / "one")  # a folder too high
    shades = tmp_path / "one" / "shades"
    (shades / "empty").mkdir()
    with pytest.raises(nnx.DataFileError, match=r"^load_images: '.*empty' holds no images\."):
        nnx.load_images(shades)
    (shades / "empty").rmdir()
    *_, images = nnx.load_images(shades)
    (shades / "light").rename(shades / "bright")
    with pytest.raises(
        nnx.DataFileError, match=r"holds the class 'bright', which is not one of the 2 known classes: dark, light"
    ):
        images.read_samples(shades)


def test_files_of_folders_are_taken_in_natural_order(tmp_path):
    for name in ("b/10.png", "b/9.png", "a.png", "b/.hidden", "Thumbs.db", ".git/x", "c/d/e.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = [name[len(str(tmp_path)) + 1 :].replace("\\", "/") for name in nnx.data.images.files(tmp_path)]
    assert found == ["a.png", "b/9.png", "b/10.png", "c/d/e.png"]
    assert nnx.data.images.files([tmp_path / "b" / "9.png", tmp_path / "c"])[0].endswith("9.png")
    (tmp_path / "none").mkdir()
    with pytest.raises(nnx.DataFileError, match=r"none' holds no images"):
        nnx.data.images.files(tmp_path / "none")
    with pytest.raises(ValueError, match=r"^images\.files: paths must be at least one path, got none"):
        nnx.data.images.files([])


# Odd images: each is read as what it is, or refused in one sentence with its name

READ = {
    "grey": lambda noise: noise("L"),
    "black and white": lambda noise: noise("1"),
    "grey with transparency": lambda noise: noise("LA"),
    "colours": lambda noise: noise("RGB"),
    "colours with transparency": lambda noise: noise("RGBA"),
    "a palette": lambda noise: noise("P"),
    "print colours": lambda noise: noise("CMYK"),
}


@pytest.mark.parametrize("kind", READ)
@pytest.mark.parametrize("colour", [False, True])
def test_images_of_any_kind_of_eight_bits_become_the_models_kind(tmp_path, rng, kind, colour):
    noise = Image.fromarray(rng.integers(0, 256, (2, 2, 3), np.uint8))
    image = READ[kind](lambda mode: noise.convert("RGBA").convert(mode) if mode != "CMYK" else noise.convert(mode))
    image.save(tmp_path / "a.tif")
    images = nnx.Images(2, 2, ["a", "b"], colour=colour)
    found = images.pixels(images.read_inputs(tmp_path / "a.tif"))[0]
    expected = np.asarray(image.convert("RGB").convert("RGB" if colour else "L"), int)
    assert np.abs(found.astype(int) - expected).max() <= 1


def png(width, height):
    """Return the beginning of a PNG file that claims a size."""
    import struct
    import zlib

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(9))) + chunk(b"IEND", b"")


def saved(image, suffix, **options):
    import io

    buffer = io.BytesIO()
    image.save(buffer, suffix, **options)
    return buffer.getvalue()


def odd_images():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8))
    more = [noise.rotate(90), noise.rotate(180)]
    whole = saved(noise, "png")
    deep = Image.fromarray(np.arange(784, dtype=np.uint16).reshape(28, 28) * 80)
    return {
        "truncated": (whole[:300], r"cannot be read \(.*truncated"),
        "damaged": (whole[:60] + b"x" * 20 + whole[80:], r"(cannot be read|is damaged) \("),
        "of 16 bits": (saved(deep, "png"), r"must have pixels of 8 bits, got mode I"),
        "an animation": (
            saved(noise, "gif", save_all=True, append_images=more),
            r"must be a single image, got one with 3",
        ),
        "pages": (
            saved(noise, "tiff", save_all=True, append_images=more),
            r"must be a single image, got one with 3",
        ),
        "no image": (b"hello", r"is not an image\."),
        "nothing": (b"", r"is not an image\."),
        "a bomb": (png(12_000, 12_000), r"is too large: images may have 89,478,485 pixels"),
        "a large bomb": (png(100_000, 100_000), r"is too large"),
    }


@pytest.mark.parametrize("case", odd_images())
def test_an_image_that_is_not_one_is_refused_with_its_name(tmp_path, case):
    content, reason = odd_images()[case]
    (tmp_path / "odd.png").write_bytes(content)
    images = nnx.Images(28, 28, ["a", "b"])
    with pytest.raises(nnx.DataFileError, match=rf"^Images\.read_inputs: '.*odd\.png' {reason}"):
        images.read_inputs(tmp_path / "odd.png")


def test_a_file_that_is_missing_or_no_file_is_named(tmp_path):
    images = nnx.Images(28, 28, ["a", "b"])
    with pytest.raises(FileNotFoundError, match=r"^Images\.read_inputs: there is no file '.*none\.png'\.$"):
        images.read_inputs([tmp_path / "none.png"])
    with pytest.raises(TypeError, match=r"^images\.files: paths must be the name of a file or folder, got 3\.$"):
        images.read_inputs([3])


def test_a_still_gif_and_a_single_pixel_are_images(tmp_path):
    Image.new("L", (28, 28), 7).save(tmp_path / "still.gif")
    images = nnx.Images(28, 28, ["a", "b"])
    assert (images.pixels(images.read_inputs(tmp_path / "still.gif")) == 7).all()
    Image.new("L", (1, 1), 9).save(tmp_path / "tiny.png")
    with pytest.warns(UserWarning, match=r"the first one from 1 × 1: '.*tiny\.png'"):
        assert (images.pixels(images.read_inputs(tmp_path / "tiny.png")) == 9).all()


# In models and their files


def model_of(images):
    model = nnx.Model()
    model.add(nnx.Layer_Dense(images.n_inputs, images.n_outputs))
    model.add(nnx.Activation_Softmax())
    model.set(images=images)
    model.finalize()
    return model


@pytest.mark.parametrize(("option", "given"), [("--keep", "name"), ("--encoding", "latin-1")])
def test_nnx_predict_refuses_options_for_tables(tmp_path, capsys, option, given):
    model_of(nnx.Images(2, 3, ["a", "b"])).save(tmp_path / "m")
    with pytest.raises(SystemExit) as left:
        main(["predict", str(tmp_path / "m"), str(tmp_path / "one.png"), option, given])
    assert left.value.code == 2
    assert f"argument {option}: is for FILE.csv only" in capsys.readouterr().err


def test_a_model_file_keeps_size_scaling_and_names(tmp_path):
    images = nnx.Images(2, 3, ["Mädchen", "b", "10"], colour=True, mean=3, scale=7)
    model = model_of(images)
    model.save(tmp_path / "m")
    loaded = nnx.Model.load(tmp_path / "m")
    assert loaded.images.to_dict() == images.to_dict()
    assert loaded.table is None
    assert loaded.preprocessor is loaded.images
    assert repr(loaded.images) == repr(images)
    loaded.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "m").read_bytes()


def test_a_table_takes_the_place_of_images_and_the_other_way_round():
    images = nnx.Images(1, 2, ["a", "b"])
    model = model_of(images)
    columns = [nnx.data.columns.Number("x"), nnx.data.columns.Number("z"), nnx.data.columns.Text("y", ("a", "b"))]
    table = nnx.Table(columns, "y")
    model.set(table=table)
    assert (model.table, model.images, model.preprocessor) == (table, None, table)
    model.set(images=images)
    assert (model.table, model.images, model.preprocessor) == (None, images, images)
    model.set(loss=nnx.Loss_CategoricalCrossentropy())
    assert model.images is images
    with pytest.raises(ValueError, match=r"^Model\.set: table must not be given together with images"):
        model.set(table=table, images=images)
    with pytest.raises(TypeError, match=r"^Model\.set: images must be of the class Images, got Table\.$"):
        model.set(images=table)
    model.table = table
    with pytest.raises(ValueError, match=r"^Model\.save: model must have a table or images, got both\.$"):
        model.save("nowhere")


def test_images_that_do_not_fit_the_network_are_refused(tmp_path):
    model = model_of(nnx.Images(1, 2, ["a", "b"]))
    model.images = nnx.Images(2, 2, ["a", "b"])
    with pytest.raises(ValueError, match=r"^Model\.save: images must give the 2 inputs of the network, got 4\.$"):
        model.save(tmp_path / "m")
    model.images = nnx.Images(1, 2, ["a", "b", "c"])
    with pytest.raises(ValueError, match=r"^Model\.save: images must have the 2 outputs of the network, got 3\.$"):
        model.save(tmp_path / "m")


@pytest.mark.parametrize(
    "described",
    [
        "text",
        [],
        {},
        {"height": 1, "width": 2, "colour": False, "mean": 0.0, "scale": 1.0},
        {"height": 1, "width": 2, "colour": False, "mean": 0.0, "scale": 0.0, "classes": ["a", "b"]},
        {"height": 1, "width": 2, "colour": False, "mean": 1e300, "scale": 1.0, "classes": ["a", "b"]},
        {"height": 10**9, "width": 2, "colour": False, "mean": 0.0, "scale": 1.0, "classes": ["a", "b"]},
        {"height": 1, "width": 2, "colour": 0, "mean": 0.0, "scale": 1.0, "classes": ["a", "b"]},
        {"height": 1, "width": 2, "colour": False, "mean": 0.0, "scale": 1.0, "classes": ["a", "a"]},
        {"height": 1, "width": 2, "colour": False, "mean": 0.0, "scale": 1.0, "classes": "ab"},
        {"height": 1, "width": 2, "colour": False, "mean": 0.0, "scale": 1.0, "classes": ["a", "b"], "more": 1},
        {"height": 2, "width": 2, "colour": False, "mean": 0.0, "scale": 1.0, "classes": ["a", "b"]},
        {"height": 1, "width": 2, "colour": False, "mean": 0.0, "scale": 1.0, "classes": ["a", "b", "c"]},
    ],
)
def test_a_file_with_other_images_is_refused(tmp_path, monkeypatch, described):
    model = model_of(nnx.Images(1, 2, ["a", "b"]))
    monkeypatch.setattr(model.images, "to_dict", lambda: described)
    model.save(tmp_path / "m")
    with pytest.raises(nnx.ModelFileError, match=r"is damaged: its images cannot be used \("):
        nnx.Model.load(tmp_path / "m")


def test_a_file_with_a_table_and_images_is_refused(tmp_path, monkeypatch):
    model = model_of(nnx.Images(1, 2, ["a", "b"]))
    columns = [nnx.data.columns.Number("x"), nnx.data.columns.Number("z"), nnx.data.columns.Text("y", ("a", "b"))]
    model.table = nnx.Table(columns, "y")
    monkeypatch.setattr("nnx.files.model_files._misfit", lambda *arguments: "")
    model.save(tmp_path / "m")
    monkeypatch.undo()
    with pytest.raises(nnx.ModelFileError, match=r"its images cannot be used \(model must have a table or images"):
        nnx.Model.load(tmp_path / "m")
