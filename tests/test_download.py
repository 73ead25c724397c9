"""Downloads continue, are checked, and explain their failures. All servers run on this machine."""

import errno
import hashlib
import http.server
import os
import threading

import pytest

from pyrseg_jax.data import download
from pyrseg_jax.data.download import PublishedFile, fetch
from pyrseg_jax.errors import UserError

CONTENT = bytes(range(256)) * 5000
MD5 = hashlib.md5(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves CONTENT, in the way that its attributes say."""

    cut_after: int | None = None  # the next answer ends after this many bytes
    has_ranges = True
    status: int | None = None  # answer with this error
    location: str | None = None  # of a redirection
    content_range: str | None = None
    has_bad_chunks = False
    content = CONTENT


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        server.asked.append(self.headers.get("Range"))
        if server.location:
            self.send_response(302)
            self.send_header("Location", server.location)
            return self.end_headers()
        if server.status:
            return self.send_error(server.status)
        if server.has_bad_chunks:
            self.protocol_version = "HTTP/1.1"
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            return self.wfile.write(b"zzz\r\nno number")
        start = 0
        if server.has_ranges and (asked := self.headers.get("Range")):
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(server.content):
                return self.send_error(416)
        rest = server.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(rest)))
        if start and server.content_range:
            self.send_header("Content-Range", server.content_range)
        self.end_headers()
        cut, server.cut_after = server.cut_after, None
        self.wfile.write(rest[:cut])
        return None

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with Server(("127.0.0.1", 0), Handler) as server:
        server.asked = []
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        server.url = f"http://127.0.0.1:{server.server_port}/a.zip"
        yield server
        server.shutdown()
        thread.join()


def test_a_file_arrives_whole_and_is_not_fetched_twice(server, tmp_path):
    published = PublishedFile(server.url, "a.zip", MD5)
    for _ in range(2):
        assert fetch(published, tmp_path / "deep" / "down").read_bytes() == CONTENT
    assert server.asked == [None]
    assert sorted(p.name for p in (tmp_path / "deep" / "down").iterdir()) == ["a.zip", "a.zip.checksum"]
    assert MD5 in (tmp_path / "deep" / "down" / "a.zip.checksum").read_text()


@pytest.mark.parametrize("has_ranges", [True, False])
def test_an_interrupted_download_continues(server, tmp_path, has_ranges):
    server.cut_after, server.has_ranges = 700_000, has_ranges
    path = fetch(PublishedFile(server.url, "a.zip", MD5), tmp_path, pause_s=0)
    assert path.read_bytes() == CONTENT
    assert server.asked == [None, "bytes=700000-"]


def test_another_run_continues_what_a_killed_one_left(server, tmp_path):
    (tmp_path / "a.zip.partial").write_bytes(CONTENT[:1000])
    assert fetch(PublishedFile(server.url, "a.zip", MD5), tmp_path).read_bytes() == CONTENT
    assert server.asked == ["bytes=1000-"]
    (tmp_path / "a.zip").rename(tmp_path / "a.zip.partial")  # killed between the last byte and the renaming
    assert fetch(PublishedFile(server.url, "a.zip", MD5), tmp_path).read_bytes() == CONTENT


def test_a_file_that_is_not_the_published_one_is_refused_and_removed(server, tmp_path):
    server.content = CONTENT[:-1] + b"!"
    with pytest.raises(
        UserError, match=rf"the file has the md5 \w+, but {MD5} is published: it is damaged .*try again"
    ):
        fetch(PublishedFile(server.url, "a.zip", MD5), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_without_a_published_checksum_the_first_one_is_held_against_later_ones(server, tmp_path, caplog):
    published = PublishedFile(server.url, "a.zip")
    fetch(published, tmp_path).unlink()
    assert "no checksum of a.zip was published; its sha256" in caplog.text
    assert fetch(published, tmp_path).read_bytes() == CONTENT
    (tmp_path / "a.zip").unlink()
    server.content = CONTENT + b"!"
    with pytest.raises(UserError, match=r"sha256 \w+, but \w+ is recorded in .*a\.zip\.checksum"):
        fetch(published, tmp_path)


@pytest.mark.parametrize("status", [404, 503])
def test_a_refusal_says_what_to_put_where(server, tmp_path, status):
    server.status = status
    message = rf"a\.zip cannot be downloaded from .*{status}.*put it into {tmp_path}, or name .*root=PLACE"
    with pytest.raises(UserError, match=message):
        fetch(PublishedFile(server.url, "a.zip"), tmp_path, pause_s=0)


def test_without_network_it_says_what_to_put_where(tmp_path):
    with pytest.raises(UserError, match=r"a\.zip cannot be downloaded from .*download it on a machine with network"):
        fetch(PublishedFile("http://nowhere.invalid/a.zip", "a.zip"), tmp_path, pause_s=0)
    assert not (tmp_path / "a.zip").exists()


def test_a_server_that_never_finishes_is_given_up(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "NUM_TRIES", 2)
    server.has_ranges = False
    real = Handler.do_GET

    def cut_always(handler):
        server.cut_after = 10
        return real(handler)

    monkeypatch.setattr(Handler, "do_GET", cut_always)
    with pytest.raises(UserError, match="10 of 1280000 bytes arrived"):
        fetch(PublishedFile(server.url, "a.zip"), tmp_path, pause_s=0)


def test_a_file_on_this_machine_can_be_the_published_one(tmp_path):
    (tmp_path / "web").write_bytes(CONTENT)
    assert fetch(PublishedFile((tmp_path / "web").as_uri(), "a.zip", MD5), tmp_path / "d").read_bytes() == CONTENT


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://127.0.0.1/a", "data:text/plain,a"])
def test_a_redirection_leads_only_to_the_web(server, tmp_path, location):
    server.location = location
    with pytest.raises(UserError, match=r"a\.zip cannot be downloaded from .*302"):
        fetch(PublishedFile(server.url, "a.zip"), tmp_path, pause_s=0)
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_never_stops_does_not_fill_the_disk(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "MAX_BYTES", 1000)
    with pytest.raises(UserError, match="the server announces 1280000 bytes, more than 1000"):
        fetch(PublishedFile(server.url, "a.zip"), tmp_path, pause_s=0)
    assert list(tmp_path.iterdir()) == []


def test_an_answer_that_is_not_http_is_one_line(server, tmp_path):
    server.has_bad_chunks = True
    with pytest.raises(UserError, match=r"a\.zip cannot be downloaded from"):
        fetch(PublishedFile(server.url, "a.zip"), tmp_path, pause_s=0)


def test_another_part_than_the_one_asked_for_is_not_appended(server, tmp_path):
    server.content_range = "bytes 0-1279999/1280000"
    (tmp_path / "a.zip.partial").write_bytes(b"other" * 200)
    assert fetch(PublishedFile(server.url, "a.zip", MD5), tmp_path, pause_s=0).read_bytes() == CONTENT


@pytest.mark.parametrize("name", ["a.zip", "a.zip.partial"])
def test_what_is_in_the_way_is_left_alone(server, tmp_path, name):
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(b"a photograph")
    (tmp_path / "down").mkdir()
    place = tmp_path / "down" / name
    place.symlink_to(photo if "partial" in name else tmp_path / "nowhere")
    with pytest.raises(UserError, match=f"{name} is a link: remove it"):
        fetch(PublishedFile(server.url, "a.zip", MD5), tmp_path / "down", pause_s=0)
    assert photo.read_bytes() == b"a photograph"
    place.unlink()
    os.mkfifo(place)
    with pytest.raises(UserError, match=f"{name} is a named pipe: remove it"):
        fetch(PublishedFile(server.url, "a.zip", MD5), tmp_path / "down", pause_s=0)


def test_a_full_disk_is_not_taken_for_an_interruption(server, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(download.urllib.request, "build_opener", fail)
    with pytest.raises(UserError, match=f"{tmp_path} cannot be written .No space left on device.: choose another"):
        fetch(PublishedFile(server.url, "a.zip"), tmp_path, pause_s=60)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"md5 1\n", b"sha256 12\n"])
def test_a_damaged_record_of_a_checksum_is_named(server, tmp_path, content):
    (tmp_path / "a.zip.checksum").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.zip\.checksum is damaged: expected a line `sha256 …`; remove it"):
        fetch(PublishedFile(server.url, "a.zip"), tmp_path, pause_s=0)


def test_an_impatient_user_loses_nothing(server, tmp_path, monkeypatch):
    published = PublishedFile(server.url, "a.zip", MD5)
    monkeypatch.setattr(download, "BLOCK_BYTES", 100_000)
    real = download.tqdm.update

    def interrupt(self, n=1):
        raise KeyboardInterrupt

    monkeypatch.setattr(download.tqdm, "update", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fetch(published, tmp_path, pause_s=0)
    monkeypatch.setattr(download.tqdm, "update", real)
    assert fetch(published, tmp_path, pause_s=0).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=100000-"]
