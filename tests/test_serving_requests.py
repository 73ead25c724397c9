"""Requests of strangers: each is answered, the bad ones with 4xx and a line, and none of them opens anything."""

import builtins
import io
import json
import os
import pickle
import re
import socket
import threading
import time
import zlib

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from support.serving import MODEL, Bright, encoded, form_of, png_of, running

from pyrseg_jax.errors import UserError
from pyrseg_jax.serving.negotiation import choose_answer
from pyrseg_jax.serving.refusal import Refusal
from pyrseg_jax.serving.server import listen

MAX_BYTES, MAX_PIXELS = 100_000, 250_000
SIZE = (24, 32)
PHOTO = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
PNG, JPEG = png_of(PHOTO), encoded(Image.fromarray(PHOTO), "JPEG")
HEAD = b"POST /v1/segment HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture(scope="module")
def service():
    with running(Bright(), timeout_s=5, max_bytes=MAX_BYTES, max_pixels=MAX_PIXELS) as service:
        yield service


def form(*arguments, **options):
    body, content_type = form_of(*arguments, **options)
    return {"body": body, "content_type": content_type}


def png_that_claims(width: int, height: int) -> bytes:
    """A PNG of a few bytes with a header of this size."""
    header = width.to_bytes(4) + height.to_bytes(4) + bytes([8, 2, 0, 0, 0])
    return PNG[:8] + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def chunk(kind: bytes, content: bytes) -> bytes:
    return len(content).to_bytes(4) + kind + content + zlib.crc32(kind + content).to_bytes(4)


def tiff_of(values: np.ndarray) -> bytes:
    return encoded(Image.fromarray(values), "TIFF")


class Opens:
    """Reads a file of the machine when it is unpickled."""

    def __reduce__(self):
        return open, ("/etc/hostname",)


# What is wrong, the request, the status, and words of the line.
BAD = {
    "an empty body": ({"body": b""}, 400, "the body is empty"),
    "no body": ({"method": "POST"}, 400, "the body is empty"),
    "a truncated JPEG": ({"body": JPEG[: len(JPEG) // 2]}, 422, "send another image"),
    "a truncated PNG": ({"body": PNG[:-40]}, 422, "is damaged"),
    "a damaged PNG": ({"body": PNG[:100] + bytes(20) + PNG[120:]}, 422, "the image"),
    "a PNG that claims gigapixels": ({"body": png_that_claims(60_000, 60_000)}, 422, "the limit is"),
    "a PNG that claims more than it holds": ({"body": png_that_claims(3000, 3000)}, 422, "it is damaged or cut off"),
    "too many pixels": ({"body": png_of(np.zeros((500, 501), np.uint8))}, 413, "more than 250,000"),
    "text": ({"body": b"hello, world"}, 415, "of no known image format"),
    "a URL": ({"body": b"http://127.0.0.1/photo.jpg"}, 415, "of no known image format"),
    "a path": ({"body": b"/etc/passwd"}, 415, "of no known image format"),
    "a pickle": ({"body": pickle.dumps(Opens())}, 415, "of no known image format"),
    "a zip archive": ({"body": b"PK\x03\x04" + bytes(50)}, 415, "a zip archive"),
    "an SVG": ({"body": b"<svg xmlns='http://www.w3.org/2000/svg'/>"}, 415, "an SVG drawing"),
    "a PDF": ({"body": b"%PDF-1.7"}, 415, "a PDF document"),
    "a PostScript program": ({"body": b"%!PS-Adobe-3.0 EPSF"}, 415, "PostScript"),
    "an array of NumPy": ({"body": b"\x93NUMPY" + bytes(50)}, 415, "a NumPy array"),
    "a TIFF without data": ({"body": tiff_of(np.full(SIZE, np.nan, np.float32))}, 422, "no pixel with data"),
    "a wrong method": ({"method": "PUT", "body": PNG}, 405, "/docs lists the methods"),
    "GET": ({}, 405, "does not take GET"),
    "another path": ({"body": PNG, "path": "/v1/predict"}, 404, "expected one of /v1/segment"),
    "a path that leads out": ({"path": "/v1/../../etc/passwd"}, 404, "there is no"),
    "an encoded path that leads out": ({"path": "/docs/%2e%2e/%2e%2e/etc/passwd%0a"}, 404, "passwd\\n"),
    "an unknown query key": ({"body": PNG, "path": "/v1/segment?url=http://x/"}, 422, "the key 'url'"),
    "a path as the query": ({"body": PNG, "path": "/v1/segment?path=/etc/passwd"}, 422, "the key 'path'"),
    "an unknown format": ({"body": PNG, "path": "/v1/segment?format=pickle"}, 422, "format=pickle: expected one of png"),
    "two formats": ({"body": PNG, "path": "/v1/segment?format=png&format=json"}, 422, "2 values"),
    "an Accept that nothing fits": ({"body": PNG, "Accept": "text/html, image/png;q=0"}, 406, "expected one of image/png"),
    "a wrong content type": ({"body": PNG, "content_type": "application/json"}, 415, "Content-Type: application/json"),
    "a form of a text field": ({"body": b"a=b", "content_type": "application/x-www-form-urlencoded"}, 415, "expected"),
    "a compressed body": ({"body": PNG, "content_encoding": "gzip"}, 415, "send the image as it is"),
    "a form without a boundary": ({"body": PNG, "content_type": "multipart/form-data"}, 400, "no boundary"),
    "a form that is not one": ({"body": PNG, "content_type": "multipart/form-data; boundary=edge"}, 400, "damaged"),
    "a form that is cut off": (form(PNG) | {"body": form(PNG)["body"][:-12]}, 400, "cut off"),
    "a form of another field": (form(PNG, field="path"), 422, "the field 'path'"),
    "a form of two files": (form(PNG, num_parts=2), 422, "several parts"),
    "a form with an empty file": (form(b""), 400, "empty"),
    "a form with a path": (form(b"../../etc/passwd", filename="../../etc/passwd"), 415, "of no known image format"),
    "too many bytes": ({"body": PNG + bytes(MAX_BYTES)}, 413, "more than 100,000 bytes"),
    "a tensor as parquet": ({"body": b"PAR1" + bytes(9)}, 415, "of no known image format"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_request_gets_4xx_and_a_line(service, name):
    request, status, words = BAD[name]
    answer = service.ask(**request)
    assert answer.status == status, answer
    assert words in answer.error, answer
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_requests_that_no_library_would_send(service):
    for head, status, words in (
        (b"GARBAGE\r\n\r\n", 400, "not a request of HTTP"),
        (HEAD + b"X: " + b"a" * 10**6 + b"\r\n\r\n", 400, "not a request of HTTP"),
        (HEAD + b"Content-Length: -1\r\n\r\n", 400, "not a request of HTTP"),
        (HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n", 400, "not a request of HTTP"),
        (HEAD + b"Content-Length: 1000000000000\r\nExpect: 100-continue\r\n\r\n", 413, "more than 100,000 bytes"),
    ):
        answer = service.say(head)
        assert answer is not None and answer.status == status, (head[:60], answer)
        assert words in answer.error
    # Without a length, bytes are counted as they come.
    piece = b"%x\r\n" % 30_000 + bytes(30_000) + b"\r\n"
    answer = service.say(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *[piece] * 4, b"0\r\n\r\n")
    assert answer is not None and answer.status == 413
    whole = HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"%x\r\n" % len(PNG) + PNG + b"\r\n0\r\n\r\n"
    answer = service.say(whole)
    assert answer is not None and answer.body == service.engine.predictor.answer_to(PHOTO)


def test_every_refusal_is_counted_and_no_text_breaks_a_line(service):
    before = service.value("pyrseg_requests_total", route="other", status="404")
    answer = service.ask(path="/%0A%1b[31m%E2%80%AEx")
    assert "\\n\\x1b[31m\\u202e" in answer.error
    # A request is counted when its answer is sent, which its client may read a moment earlier.
    wait_until(lambda: service.value("pyrseg_requests_total", route="other", status="404") == before + 1)
    assert service.ask(PNG, method="PUT").headers["allow"] == "POST"
    assert b"passwd" not in service.ask(path="/metrics").body  # paths of strangers are no labels


@given(
    st.binary(max_size=300)
    | st.builds(
        lambda at, byte: PNG[:at] + bytes([byte]) + PNG[at + 1 :], at=st.integers(0, 80), byte=st.integers(0, 255)
    ),
    st.sampled_from(
        [None, "image/png", "multipart/form-data; boundary=edge", "multipart/form-data; boundary=", "text/plain"]
    ),
    st.sampled_from(["", "?format=json", "?format=overlay", "?format=", "?&&=", "?format"]),
)
@example(
    b'--edge\r\nContent-Disposition: form-data; name="image"\r\n\r\n' + PNG + b"\r\n--edge--",
    "multipart/form-data; boundary=edge",
    "",
)
def test_any_body_is_answered_or_refused_with_a_line(service, body, content_type, query):
    headers = {} if content_type is None else {"content_type": content_type}
    answer = service.ask(body, f"/v1/segment{query}", **headers)
    assert answer.status == 200 or (400 <= answer.status < 500 and answer.error), answer


@given(
    st.lists(
        st.sampled_from(
            [
                b"POST ",
                b"GET ",
                b"/v1/segment",
                b" HTTP/1.1\r\n",
                b"Host: x\r\n",
                b"\r\n",
                b"\0",
                b"\xff",
                b"Content-Length: 3\r\n",
                b"Transfer-Encoding: chunked\r\n",
                b"0\r\n\r\n",
                b"abc",
                b"Expect: 100-continue\r\n",
            ]
        ),
        max_size=12,
    )
)
def test_any_bytes_on_a_connection_harm_nobody(service, pieces):
    """A connection that is not finished is closed by its client; whatever came, the next request is answered."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=5) as connection:
        connection.sendall(b"".join(pieces))
    assert service.ask(path="/healthz").status == 200


def odd_images() -> dict[str, tuple[bytes, np.ndarray]]:
    """Images that are not plain RGB, and what `predict` makes of them."""
    image = Image.fromarray(PHOTO)
    gray = np.asarray(image.convert("L"))
    deep = np.arange(24 * 32, dtype=np.uint16).reshape(24, 32) * 80
    dots = Image.fromarray(np.random.default_rng(1).integers(0, 256, (*SIZE, 4), np.uint8))
    animated = encoded(image, "GIF", save_all=True, append_images=[Image.new("RGB", image.size)])
    exif = Image.Exif()
    exif[274] = 6  # to be turned
    return {
        "gray": (png_of(gray), np.repeat(gray[..., None], 3, -1)),
        "16 bits": (png_of(deep), deep),
        "alpha": (encoded(dots, "PNG"), np.asarray(dots)),
        "CMYK": (encoded(image.convert("CMYK"), "JPEG"), PHOTO),
        "1 × 1": (png_of(PHOTO[:1, :1]), PHOTO[:1, :1]),
        "animated": (animated, PHOTO),
        "WebP": (encoded(image, "WEBP", lossless=True), PHOTO),
        "TIFF": (encoded(image, "TIFF"), PHOTO),
        "TIFF with some NaN": (tiff_of(np.where(gray > 9, gray / 255, np.nan).astype(np.float32)), PHOTO),
        "turned": (encoded(image, "JPEG", exif=exif), PHOTO),
    }


@pytest.mark.parametrize("name", odd_images())
def test_odd_images_are_decoded_as_predict_decodes_them(service, name):
    from pyrseg_jax.data.decode import decode_image

    data, _ = odd_images()[name]
    expected = service.engine.predictor.answer_to(decode_image(data, "the image"))
    answer = service.ask(data, content_type="image/png")
    assert (answer.status, answer.headers["content-type"]) == (200, "image/png"), answer
    assert answer.body == expected
    assert service.ask(**form(data, filename="../../etc/passwd")).body == expected


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, "png"), ("", "png"), ("*/*", "png"), ("image/*", "png"), ("application/json", "json"), ("image/jpeg", "overlay"),
        ("text/html, application/json;q=0.9, */*;q=0.1", "json"), ("image/png;q=0.5, image/jpeg", "overlay"),
        ("IMAGE/PNG ; Q=1", "png"), ("image/png;q=nan", 406), ("image/png;q=x", 406), ("text/*", 406), 
        ("image/png;q=0, */*", "json"),
    ],
)  # fmt: skip
def test_the_answer_is_what_the_client_accepts_most(accept, expected):
    if isinstance(expected, str):
        assert choose_answer(None, accept) == expected
    else:
        with pytest.raises(Refusal) as refused:
            choose_answer(None, accept)
        assert refused.value.status == expected


def test_json_says_share_confidence_and_mask_of_each_class(service):
    document = json.loads(service.ask(PNG, Accept="application/json").body)
    is_bright = PHOTO.mean(-1) > 127
    assert (document["height"], document["width"], document["confidence"], document["model"]) == (*SIZE, 0.8, MODEL)
    dark, bright = document["classes"]
    assert (dark["name"], dark["value"], bright["name"], bright["value"]) == ("dark", 1, "bright", 2)
    assert bright["share"] == pytest.approx(is_bright.mean(), abs=1e-6) and bright["confidence"] == 0.8
    from pyrseg_jax.shapes.rle import decode_runs, decompress_runs

    mask = decode_runs(decompress_runs(bright["segmentation"]["counts"]), *bright["segmentation"]["size"])
    np.testing.assert_array_equal(mask, is_bright)
    overlay = service.ask(PNG, "/v1/segment?format=overlay", Accept="application/json")
    assert overlay.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(overlay.body)).size == SIZE[::-1]


def test_the_model_is_described_and_the_pages_load_nothing(service):
    about = json.loads(service.ask(path="/v1/model").body)
    assert about.items() >= (MODEL | {"void": 0, "threshold": 0.5, "sizes": [], "takes_any_size": True}).items()
    assert [known["name"] for known in about["classes"]] == ["dark", "bright"]
    assert (about["max_bytes"], about["max_pixels"]) == (MAX_BYTES, MAX_PIXELS)
    schema = json.loads(service.ask(path="/openapi.json").body)
    assert "image/*" in schema["paths"]["/v1/segment"]["post"]["requestBody"]["content"]
    page = service.ask(path="/docs")
    text = page.body.decode()
    assert all(path in text for path in schema["paths"])
    assert "<script" not in text and not re.findall(r"(?:src|href)=\"?(?:https?:)?//", text)
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    for path in ("/redoc", "/docs/oauth2-redirect"):
        assert service.ask(path=path).status == 404
    assert json.loads(service.ask(path="/healthz").body) == {"status": "alive"}
    assert json.loads(service.ask(path="/readyz").body) == {"status": "ready"}
    metrics = service.ask(path="/metrics").body.decode()
    for name in (
        "requests_total",
        "request_seconds_bucket",
        "batch_images_sum",
        "held_requests",
        "images_total",
        "ready",
    ):
        assert f"pyrseg_{name}" in metrics
    assert "pyrseg_compilations_total" in metrics


def test_nothing_that_a_request_names_is_opened(service, monkeypatch):
    """No file is opened while requests are answered, neither one they name nor a temporary one."""
    opened = []
    for module, name in ((builtins, "open"), (io, "open"), (os, "open")):
        call = getattr(module, name)
        recorded = lambda path, *rest, call=call, **named: (opened.append(path), call(path, *rest, **named))[1]  # noqa: E731
        monkeypatch.setattr(module, name, recorded)
    for request, status, _ in BAD.values():
        assert service.ask(**request).status == status
    assert service.ask(**form(PNG, filename="/etc/passwd")).status == 200
    assert not [path for path in opened if not str(path).startswith("/proc/")]  # which /metrics reads


# ── Time, load, tokens ──


def test_a_body_that_does_not_come_and_an_answer_that_takes_too_long():
    predictor = Bright()
    with running(predictor, timeout_s=1.0) as service:
        answer = service.say(HEAD + b"Content-Length: 50\r\n\r\nabc", pause_s=0)
        assert answer is not None and answer.status == 408
        assert "within 1 s" in answer.error and answer.headers["connection"] == "close"
        predictor.gate.clear()
        late = service.ask(PNG)
        predictor.gate.set()
        assert late.status == 504 and "within 1 s" in late.error
        assert service.ask(PNG).body == predictor.answer_to(PHOTO)
        assert service.value("pyrseg_held_requests") == 0


def test_headers_that_do_not_come_close_the_connection(monkeypatch):
    monkeypatch.setattr("pyrseg_jax.serving.server.HEADERS_S", 0.5)
    with running(Bright()) as service:
        start = time.monotonic()
        assert service.say(HEAD + b"X: ") is None
        assert service.say(b"") is None
        assert time.monotonic() - start < 5
        assert service.ask(PNG).status == 200


def test_a_full_queue_asks_to_come_again():
    predictor = Bright()
    with running(predictor, queue=2) as service:
        predictor.gate.clear()
        answers = []
        clients = [threading.Thread(target=lambda: answers.append(service.ask(PNG))) for _ in range(2)]
        for client in clients:
            client.start()
        wait_until(lambda: service.value("pyrseg_held_requests") == 2)
        refused = service.ask(PNG)
        assert refused.status == 503 and refused.headers["retry-after"] == "1" and "holds 2 requests" in refused.error
        assert service.ask(path="/healthz").status == 200  # the others are answered meanwhile
        predictor.gate.set()
        for client in clients:
            client.join()
        assert [answer.body for answer in answers] == [predictor.answer_to(PHOTO)] * 2


def test_requests_that_wait_together_go_through_the_network_together():
    predictor = Bright(batch_size=4)
    photos = [np.roll(PHOTO, 3 * shift, axis=1) for shift in range(10)]
    with running(predictor) as service:
        predictor.gate.clear()
        answers = {}
        clients = [
            threading.Thread(target=lambda i=i: answers.update({i: service.ask(png_of(photos[i]))})) for i in range(10)
        ]
        for client in clients:
            client.start()
        wait_until(lambda: service.value("pyrseg_held_requests") == 10)
        predictor.gate.set()
        for client in clients:
            client.join()
        assert [answers[i].body for i in range(10)] == [predictor.answer_to(photo) for photo in photos]
        assert sum(predictor.batches) == 10 and max(predictor.batches) > 1
        assert service.value("pyrseg_batch_images_sum") == 10


def test_a_model_that_fails_is_a_fault_of_the_server():
    predictor = Bright()
    with running(predictor) as service:
        for failure, words in (
            (UserError("NaN everywhere"), "NaN everywhere"),
            (ValueError("secret"), "which its log names"),
        ):
            predictor.failure = failure
            answer = service.ask(PNG)
            assert answer.status == 500 and words in answer.error and "secret" not in answer.error
        predictor.failure = None
        assert service.ask(PNG).status == 200


def test_before_it_is_ready_the_server_is_alive_and_asks_to_come_again():
    predictor = Bright()
    predictor.gate.clear()
    with running(predictor, sizes=[SIZE], is_waiting=False) as service:
        assert service.ask(path="/healthz").status == 200
        for answer in (service.ask(path="/readyz"), service.ask(PNG)):
            assert answer.status == 503 and answer.headers["retry-after"] == "1"
            assert "being loaded" in answer.error
        predictor.gate.set()
        wait_until(lambda: service.engine.is_ready)
        assert service.ask(PNG).status == 200
        assert service.ask(path="/readyz").status == 200


def test_only_listed_sizes_are_accepted_and_those_that_the_network_sees_alike():
    with running(Bright(), sizes=[SIZE]) as service:
        assert service.ask(png_of(PHOTO[:, :-1])).status == 422
        refused = service.ask(png_of(PHOTO[:16]))
        assert "16 × 32 pixels" in refused.error and "24 × 32; scale or pad it" in refused.error
        larger = np.pad(PHOTO, ((0, 7), (0, 7), (0, 0)))
        assert service.ask(png_of(larger)).body == service.engine.predictor.answer_to(larger)


def test_a_model_that_cannot_be_warmed_up_ends_the_server():
    predictor = Bright()
    predictor.failure = UserError("its weights are damaged")
    with pytest.raises(UserError, match="its weights are damaged"), running(predictor, sizes=[SIZE]):
        raise AssertionError("the server is ready")


def test_what_is_held_is_answered_when_the_server_ends():
    predictor = Bright()
    answers = []
    with running(predictor) as service:
        predictor.gate.clear()
        client = threading.Thread(target=lambda: answers.append(service.ask(PNG)))
        client.start()
        wait_until(lambda: service.value("pyrseg_held_requests") == 1)
        threading.Timer(0.3, predictor.gate.set).start()
    client.join()
    assert answers[0].body == predictor.answer_to(PHOTO)


def test_a_token_is_needed_for_all_but_the_checks_of_health():
    token = "0123456789abcdef-secret"
    with running(Bright(), token=token) as service:
        for headers in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": token},
            {"Authorization": f"Basic {token}"},
        ):
            for path, body in (("/v1/segment", PNG), ("/v1/model", None), ("/metrics", None), ("/nowhere", None)):
                answer = service.ask(body, path, **headers)
                assert answer.status == 401 and answer.headers["www-authenticate"] == "Bearer", (path, headers)
                assert "Authorization: Bearer TOKEN" in answer.error
        right = {"Authorization": f"bearer {token}"}
        assert service.ask(PNG, **right).status == 200
        assert service.ask(path="/v1/model", **right).status == 200
        assert service.ask(path="/healthz").status == service.ask(path="/readyz").status == 200


def test_an_address_that_is_taken_or_unknown_is_named():
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            UserError, match=f"--host=127.0.0.1 --port={port}: cannot listen there .Address already in use"
        ):
            listen("127.0.0.1", port)
    with pytest.raises(UserError, match="--host=192.0.2.1 --port=0: cannot listen there"):
        listen("192.0.2.1", 0)


def wait_until(condition) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
