"""The mushrooms: read from a made-up file of their structure, or from a server, and refused if anything is wrong."""

import hashlib
import http.server
import threading

import pytest
import torch

from bbb.data import DataError, load_mushrooms
from bbb.data.mushrooms import FILE, LETTERS
from tests.data_files import made_up_mushrooms

CONTENT = made_up_mushrooms()


@pytest.fixture
def path(tmp_path):
    (tmp_path / "mine.data").write_text(CONTENT)
    return tmp_path / "mine.data"


def test_attributes_are_one_hot_and_the_class_is_the_label(path, tmp_path):
    split, checksum = load_mushrooms(path, tmp_path)
    assert checksum == hashlib.sha256(CONTENT.encode()).hexdigest()
    assert (len(LETTERS), split.images.shape, split.images.dtype) == (22, (8124, 126), torch.uint8)
    assert split.labels.sum() == 4208
    starts = [sum(map(len, LETTERS[:i])) for i in range(22)]
    for number in (0, 17, 8123):
        label, *letters = CONTENT.splitlines()[number].split(",")
        assert split.labels[number] == (label == "e")
        ones = split.images[number].nonzero().squeeze(1).tolist()
        assert ones == [start + LETTERS[i].index(letters[i]) for i, start in enumerate(starts)]


def test_line_endings_do_not_matter(path, tmp_path):
    first, _ = load_mushrooms(path, tmp_path)
    path.write_text(CONTENT.replace("\n", "\r\n") + "\n", newline="")
    assert torch.equal(load_mushrooms(path, tmp_path)[0].images, first.images)


def test_the_checksum_that_is_asked_for_is_taken_in_both_cases(path, tmp_path):
    checksum = hashlib.sha256(CONTENT.encode()).hexdigest()
    assert load_mushrooms(path, tmp_path, checksum.upper())[1] == checksum


FIRST = CONTENT.splitlines()[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds none; must be 4,208 of class e"),
        (CONTENT.replace(FIRST + "\n", "", 1), "must be 4,208 of class e \\(edible\\) and 3,916 of class p"),
        (CONTENT.replace(FIRST, FIRST + ",x", 1), "line 1 has 24 values; must be a class and 22 letters"),
        (CONTENT.replace(FIRST, FIRST[:2] + "!" + FIRST[3:], 1), "line 1: attribute 1 is !; must be one of bcxfks"),
        (CONTENT.replace(FIRST, FIRST[:2] + FIRST[3:], 1), "line 1: attribute 1 is ; must be one of bcxfks"),
        (CONTENT.replace(FIRST, "q" + FIRST[1:], 1), "1 of class q"),
        ("<html>not found</html>", "line 1 has 1 values"),
    ],
    ids=["empty", "a line less", "a value more", "an unknown letter", "no letter", "an unknown class", "a page"],
)
def test_a_file_of_another_structure_is_refused(path, tmp_path, content, message):
    path.write_text(content)
    with pytest.raises(DataError, match=message) as refusal:
        load_mushrooms(path, tmp_path)
    assert len(str(refusal.value).splitlines()) == 1


def test_a_wrong_checksum_and_a_missing_file_are_refused(path, tmp_path):
    with pytest.raises(DataError, match=f"mine.data: its sha256 checksum is [0-9a-f]{{64}}, not {'0' * 64}"):
        load_mushrooms(path, tmp_path, "0" * 64)
    with pytest.raises(DataError, match=r"file=.*yours.data: cannot be read \(No such file"):
        load_mushrooms(tmp_path / "yours.data", tmp_path)


@pytest.fixture
def server():
    """A web server on this machine with one file, and what was asked of it."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            found = self.path == "/agaricus-lepiota.data"
            self.send_response(200 if found else 404)
            self.end_headers()
            self.wfile.write(CONTENT.encode() if found else b"")

        def log_message(self, *args):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as serving:
        thread = threading.Thread(target=serving.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{serving.server_port}", asked
        serving.shutdown()
        thread.join()


def test_they_are_downloaded_once(tmp_path, server):
    address, asked = server
    first, checksum = load_mushrooms(None, tmp_path, url=f"{address}/agaricus-lepiota.data")
    assert (tmp_path / FILE).read_text() == CONTENT
    second, _ = load_mushrooms(None, tmp_path, checksum, url=f"{address}/agaricus-lepiota.data")
    assert asked == ["/agaricus-lepiota.data"]
    assert torch.equal(first.images, second.images)


@pytest.mark.parametrize("url", ["{}/elsewhere", "http://127.0.0.1:9/", "nonsense"])
def test_what_cannot_be_downloaded_leaves_nothing(tmp_path, server, url):
    with pytest.raises(DataError, match=r"cannot be downloaded from .*; name the file") as refusal:
        load_mushrooms(None, tmp_path, url=url.format(server[0]))
    assert len(str(refusal.value).splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_download_that_is_damaged_leaves_nothing(tmp_path, server):
    with pytest.raises(DataError, match="its sha256 checksum is"):
        load_mushrooms(None, tmp_path, "0" * 64, url=f"{server[0]}/agaricus-lepiota.data")
    assert list(tmp_path.iterdir()) == []
