"""Downloads that end before they are whole, or do not end, against a server of this process."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from lmcli.data import download as module
from lmcli.data.corpus import read_documents
from lmcli.data.download import DownloadError, download
from lmcli.data.text import TextOptions
from lmcli.errors import TextError

WHOLE = b"the old cat sees a dog .\n" * 4000


class Handler(BaseHTTPRequestHandler):
    """Each path is one way to answer."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Nothing is printed."""

    def begin(self, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True

    def chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def do_GET(self) -> None:
        name = self.path.strip("/").partition(".")[0].replace("-", "_")
        getattr(self, f"answer_{name}")()

    def answer_whole(self) -> None:
        self.begin(Content_Length=str(len(WHOLE)))
        self.wfile.write(WHOLE)

    def answer_packed(self) -> None:
        data = gzip.compress(WHOLE)
        self.begin(Content_Length=str(len(data)))
        self.wfile.write(data)

    def answer_cut(self) -> None:
        self.begin(Content_Length=str(len(WHOLE)))
        self.wfile.write(WHOLE[:650])

    def answer_chunked(self) -> None:
        self.begin(Transfer_Encoding="chunked")
        for i in range(0, len(WHOLE), 9000):
            self.chunk(WHOLE[i : i + 9000])
        self.chunk(b"")

    def answer_chunks_cut(self) -> None:
        self.begin(Transfer_Encoding="chunked")
        self.chunk(WHOLE[:9000])

    def answer_in_chunk_cut(self) -> None:
        self.begin(Transfer_Encoding="chunked")
        self.wfile.write(b"2328\r\n" + WHOLE[:100])

    def answer_huge(self) -> None:
        self.begin(Content_Length=str(1 << 40))

    def answer_endless(self) -> None:
        self.begin()
        for _ in range(1000):
            self.wfile.write(WHOLE)

    def answer_stall(self) -> None:
        self.begin(Content_Length=str(len(WHOLE)))
        time.sleep(1.0)

    def answer_trickle(self) -> None:
        self.begin(Content_Length=str(len(WHOLE)))
        for i in range(20):
            self.wfile.write(WHOLE[i : i + 1])
            time.sleep(0.05)

    def answer_moved(self) -> None:
        self.begin(302, Location="/whole.txt", Content_Length="0")

    def answer_elsewhere(self) -> None:
        self.begin(302, Location="ftp://127.0.0.1/a.txt", Content_Length="0")

    def answer_file(self) -> None:
        self.begin(302, Location="file:///etc/hostname", Content_Length="0")

    def answer_busy(self) -> None:
        self.begin(503, Content_Length="0")


@pytest.fixture(scope="module")
def server() -> Iterator[Callable[[str], str]]:
    """The address of a path of the server."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.handle_error = lambda *_: None
        thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield lambda path: f"http://127.0.0.1:{running.server_port}/{path}"
        running.shutdown()
        thread.join()


def fetched(address: str, **options: float) -> bytes:
    return b"".join(download(address, 4096, **options))


@pytest.mark.parametrize("path", ["whole.txt", "chunked.txt", "moved.txt"])
def test_all_bytes_arrive(server: Callable[[str], str], path: str) -> None:
    assert fetched(server(path)) == WHOLE


@pytest.mark.parametrize("path", ["cut.txt", "chunks-cut.txt", "in-chunk-cut.txt"])
def test_a_download_that_is_cut_off_is_an_error_and_no_text(
    server: Callable[[str], str], path: str
) -> None:
    with pytest.raises(TextError) as error:
        read_documents([server(path)], TextOptions())
    assert server(path) in error.value.problem


def test_the_missing_bytes_are_counted(server: Callable[[str], str]) -> None:
    with pytest.raises(DownloadError, match="cut off: 650 of 100,000 bytes came"):
        fetched(server("cut.txt"))


def test_a_packed_text_is_unpacked_after_it_has_come_whole(server: Callable[[str], str]) -> None:
    assert read_documents([server("packed.txt.gz")], TextOptions()) == [WHOLE.decode()]


def test_too_large_a_text_is_an_error(
    server: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DownloadError, match=r"it has 1,099,511,627,776 bytes"):
        fetched(server("huge.txt"))
    monkeypatch.setattr(module, "LARGEST", 300_000)
    with pytest.raises(DownloadError, match="more than 300,000 bytes"):
        fetched(server("endless.txt"))


def test_a_download_that_stalls_or_trickles_ends(server: Callable[[str], str]) -> None:
    with pytest.raises(TimeoutError):
        fetched(server("stall.txt"), timeout=0.2)
    with pytest.raises(DownloadError, match=r"bytes came in \d+ seconds"):
        fetched(server("trickle.txt"), timeout=0.2)


@pytest.mark.parametrize("path", ["elsewhere.txt", "file.txt"])
def test_a_redirect_to_another_kind_of_address_is_not_followed(
    server: Callable[[str], str], path: str
) -> None:
    with pytest.raises(OSError, match=r"it redirects from http to|is not allowed"):
        fetched(server(path))


def test_a_server_that_refuses_is_an_error_that_names_the_address(
    server: Callable[[str], str],
) -> None:
    with pytest.raises(TextError, match="503"):
        read_documents([server("busy.txt")], TextOptions())
