"""What a job is answered with: every kind of output, and nothing above what RunPod takes."""

from __future__ import annotations

import asyncio
import base64
import errno
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from fakes.r2 import R2
from hearmeman.errors import UsageError
from hearmeman.worker import answer, bucket, config, handler, inputs
from hearmeman.worker.request import Bucket
from hearmeman.workflows.answers import Output, Result


def result(
    folder: Path, outputs: Sequence[Output], texts: tuple[tuple[str, str], ...] = ()
) -> tuple[Result, answer.Saved]:
    saved = []
    for number, output in enumerate(outputs):
        (folder / str(number)).write_bytes(f"content of {output.filename}".encode())
        saved.append((output, folder / str(number)))
    return Result("id", tuple(outputs), False, texts), saved


def test_every_kind_of_output_is_in_the_answer(tmp_path: Path) -> None:
    kinds = ("images", "gifs", "video", "audio", "3d", "error")
    made, saved = result(tmp_path, [Output("9", kind, f"{kind}.bin", "", "output") for kind in kinds], (("7", "said"),))
    found = answer.inline(made, saved)
    # `error` is RunPod's own word for a failed job.
    assert set(found) == {"images", "gifs", "video", "audio", "3d", "files", "texts"}
    assert found["texts"] == [{"node": "7", "text": "said"}]
    (video,) = found["video"]
    assert (video["filename"], video["type"]) == ("video.bin", "base64")
    assert base64.b64decode(video["data"]) == b"content of video.bin"


def test_a_job_without_outputs_says_so_as_worker_comfyui_does(tmp_path: Path) -> None:
    assert answer.inline(*result(tmp_path, [])) == {"images": [], "status": "success_no_images"}


def test_previews_are_given_only_where_there_is_nothing_else() -> None:
    preview, kept = Output("1", "images", "p.png", "", "temp"), Output("2", "images", "k.png", "", "output")
    assert answer.wanted([preview, kept]) == [kept]
    assert answer.wanted([preview]) == [preview]


def test_the_estimate_is_never_above_what_is_sent(tmp_path: Path) -> None:
    made, saved = result(tmp_path, [Output("9", "images", "ä.png", "", "output")])
    assert answer.least(saved) < answer.size(answer.inline(made, saved))
    assert (answer.limit("sync-1"), answer.limit("1")) == (20_000_000, 10_000_000)
    assert "20.0 MB in an answer, but RunPod takes 10 MB from /run" in str(answer.too_large(10_000_000, 20_000_000))


def test_an_address_is_given_for_what_lies_in_the_bucket(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"content")
    with R2() as r2:
        environ = r2.environ()
        own = Bucket(r2.url, r2.bucket, environ["R2_ACCESS_KEY_ID"], environ["R2_SECRET_ACCESS_KEY"])
        signed = bucket.upload(own, "jobs/a b.png", tmp_path / "f")
        assert r2.objects["jobs/a b.png"].content == b"content"
        [sent] = r2.operations("put_object")
        assert "expect" not in sent.headers, "R2 never answers 100, and each file would wait a second for it"
        assert signed.startswith(r2.url) and "X-Amz-Expires=604800" in signed and own.secret not in signed
        public = bucket.upload(own, "jobs/a b.png", tmp_path / "f", "https://cdn.example.com/")
        assert public == "https://cdn.example.com/jobs/a%20b.png"
        wrong = Bucket(r2.url, r2.bucket, own.key_id, "not-the-secret")
        with pytest.raises(bucket.UploadError, match="the key's right to write") as caught:
            bucket.upload(wrong, "jobs/c.png", tmp_path / "f")
        assert wrong.secret not in str(caught.value)


def test_what_another_tool_is_configured_with_has_no_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    (home / ".aws").mkdir(parents=True)
    (home / ".aws/config").write_text(
        "[default]\nendpoint_url = http://127.0.0.1:9\ns3 =\n  addressing_style = virtual\n"
    )
    (tmp_path / "config").write_text("[profile x\nnot a config")
    (tmp_path / "f").write_bytes(b"content")
    others = {
        "AWS_PROFILE": "nobody",
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "config"),
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9",
        "AWS_SESSION_TOKEN": "another's",
        "AWS_USE_FIPS_ENDPOINT": "true",
        "AWS_RETRY_MODE": "nonsense",
        "AWS_CA_BUNDLE": str(tmp_path / "none.pem"),
        "AWS_DEFAULT_REGION": "mars-1",
    }
    with R2() as r2:
        environ = r2.environ()
        own = Bucket(r2.url, r2.bucket, environ["R2_ACCESS_KEY_ID"], environ["R2_SECRET_ACCESS_KEY"])
        monkeypatch.setenv("HOME", str(home))
        assert bucket.upload(own, "a", tmp_path / "f").startswith(r2.url)
        for name, value in others.items():
            monkeypatch.setenv(name, value)
        assert bucket.upload(own, "b", tmp_path / "f").startswith(r2.url)
        assert {key: one.content for key, one in r2.objects.items()} == {"a": b"content", "b": b"content"}


def test_a_jobs_bucket_may_not_lie_in_the_workers_network() -> None:
    with pytest.raises(inputs.InputError, match="private network"):
        inputs.check("http://169.254.169.254/latest")

    async def look() -> None:
        await inputs.Resolver().resolve("localhost")

    with pytest.raises(inputs.InputError, match="private network"):
        asyncio.run(look())


@pytest.mark.parametrize(
    "url", ["host/bucket", "ftp://host/bucket", "https://host/a/b", "https://user:word@host/bucket", "https://host/"]
)
def test_a_bucket_address_of_the_endpoint_that_cannot_be_used_is_refused_unseen(url: str) -> None:
    environ = {"BUCKET_ENDPOINT_URL": url, "BUCKET_ACCESS_KEY_ID": "a", "BUCKET_SECRET_ACCESS_KEY": "b"}
    with pytest.raises(UsageError) as caught:
        config.read(environ)
    assert "word" not in str(caught.value).replace("password", "")


def test_a_bucket_of_the_endpoint_is_read_as_worker_comfyui_does() -> None:
    environ = {"BUCKET_ACCESS_KEY_ID": "a", "BUCKET_SECRET_ACCESS_KEY": "b"}
    for url in ("https://s3.eu-west-1.amazonaws.com/mine", "https://mine.s3.eu-west-1.amazonaws.com"):
        found = config.read({**environ, "BUCKET_ENDPOINT_URL": url}).always
        assert found == Bucket("https://s3.eu-west-1.amazonaws.com", "mine", "a", "b")


@pytest.mark.parametrize("private", ["false", "true"])
@pytest.mark.parametrize(
    ("endpoint", "says"),
    [
        ("http://127.0.0.1:9", "private network"),
        ("http://localhost:9", "private network"),
        ("https://account.r2.invalid", "the host account.r2.invalid cannot be found"),
        (f"https://{'a' * 64}.com", "cannot be found"),
    ],
)
def test_a_jobs_bucket_that_cannot_be_used_is_refused_before_anything_runs(
    endpoint: str, says: str, private: str
) -> None:
    own = {"endpointUrl": endpoint, "bucketName": "b", "accessId": "i", "accessSecret": "s"}
    job = {"id": "a", "input": {"workflow": {"1": {"class_type": "A", "inputs": {}}}, "s3Config": own}}
    # No ComfyUI answers there: it is asked only where the bucket may lie in a private network.
    environ = {"COMFYUI_URL": "http://127.0.0.1:9", "WORKER_PRIVATE_URLS": private}
    allowed = private == "true" and "private" in says
    found = asyncio.run(handler.handle(job, config.read(environ), lambda job, what: None))
    assert (says in found["error"]) != allowed
    assert ("ComfyUI" in found["error"]) == allowed


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_jobs_bucket_is_reached_at_the_address_that_was_checked_and_at_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    (tmp_path / "f").write_bytes(b"content")
    real, names, addresses = socket.getaddrinfo, ["93.184.215.14"], []

    def look_up(host: str, port: Any, *more: Any, **named: Any) -> Any:
        if host == "rebinding.example.com":
            # Public when it is looked up first, this machine ever after.
            return real(names.pop() if names else "127.0.0.1", port, *more, **named)
        if host == "93.184.215.14":
            addresses.append(host)
            raise OSError(errno.ENETUNREACH, "no network in a test")
        return real(host, port, *more, **named)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with R2() as r2:
        port = urlsplit(r2.url).port
        own = Bucket(f"{scheme}://rebinding.example.com:{port}", r2.bucket, "i", "s")
        with pytest.raises(bucket.UploadError, match="private network"):
            bucket.upload(own, "a", tmp_path / "f", allow_private=False)
        assert addresses == ["93.184.215.14"] and not r2.objects and not r2.requests
