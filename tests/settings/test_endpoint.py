"""The endpoint as people paste it: what is taken, and what is refused since it would put data in the wrong place."""

from __future__ import annotations

import pytest

from hearmeman.settings import SettingsError, load

ACCOUNT = "0123456789abcdef0123456789abcdef"
R2 = f"https://{ACCOUNT}.r2.cloudflarestorage.com"


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        (R2, R2),
        (f"{R2}/", R2),
        (f"{R2}/runpod", R2),
        (f"{R2}/runpod/", R2),
        (f"https://{ACCOUNT}.eu.r2.cloudflarestorage.com", f"https://{ACCOUNT}.eu.r2.cloudflarestorage.com"),
        ("http://127.0.0.1:9000", "http://127.0.0.1:9000"),
        ("http://[::1]:9000/", "http://[::1]:9000"),
        ("https://s3.example.com:443/runpod", "https://s3.example.com:443"),
    ],
)
def test_a_bucket_at_the_end_is_taken_out(given: str, taken: str) -> None:
    assert load({"R2_ENDPOINT": given}).r2_endpoint == taken


@pytest.mark.parametrize(
    ("given", "advice"),
    [
        (f"{R2}/videos", f"set R2_BUCKET=videos and R2_ENDPOINT={R2}"),
        (f"{R2}/runpod/outputs", "has a path"),
        (f"https://runpod.{ACCOUNT}.r2.cloudflarestorage.com", f"set R2_BUCKET=runpod and R2_ENDPOINT={R2}"),
        ("https://<account>.r2.cloudflarestorage.com", "still holds a placeholder"),
        ("https://your-account.eu.r2.cloudflarestorage.com", "not an account id"),
        ("https://key:hunter2@s3.example.com", "contains a login"),
        ("https://s3.example.com?x=1", "not the address of a server"),
        ("https://s3.example.com:port", "is not an address"),
        ("https://a b", "not the address of a server"),
        ("https://", "not the address of a server"),
        ("ftp://x", "must begin with https://"),
        ("s3.example.com", "must begin with https://"),
    ],
)
def test_what_would_redirect_data_is_refused_with_the_right_values(given: str, advice: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load({"R2_ENDPOINT": given})
    assert advice in str(caught.value)


@pytest.mark.parametrize("prefix", ["../x", "a/../b", "a//b", ".", "a/.", "x" * 101, "a\nb", "a\x7f", "\udcff"])
def test_a_prefix_that_leaves_its_folder_is_refused(prefix: str) -> None:
    with pytest.raises(SettingsError, match="R2_PREFIX"):
        load({"R2_PREFIX": prefix})


@pytest.mark.parametrize("prefix", ["outputs", "team/outputs", "/outputs/", "\u00e4 b", "..a", "x" * 100])
def test_other_prefixes_are_taken(prefix: str) -> None:
    assert load({"R2_PREFIX": prefix}).r2_prefix == prefix.strip("/")


def test_the_advice_works_when_it_is_followed() -> None:
    assert load({"R2_ENDPOINT": f"{R2}/videos", "R2_BUCKET": "videos"}).r2_endpoint == R2
