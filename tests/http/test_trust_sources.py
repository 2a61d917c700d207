"""Keys that change: JWK sets in files and at URLs, fetched over real sockets, well and badly published."""

from __future__ import annotations

import gc
import json
import logging
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from publisher import BAD, Publisher, body, jwks, publishing, silent
from wire import ALICE, BOB, HOP, grown, inline, service, serving, until

from kest.core import PassportVerifier, TrustStore, VerificationError, configure, live_document
from kest.core.fetch import FetchError, check_url, fetch
from kest.core.trust_sources import JWKSSource, KeySnapshot, KeySource
from kest.errors import ConfigurationError, KestError, KeyFormatError

FAST = {"refresh": 0.05, "lifetime": 3600.0, "timeout": 5.0, "min_interval": 0.0}
SLOW = {"refresh": 3600.0, "lifetime": 86400.0, "timeout": 5.0, "min_interval": 0.0}
ROOT = Path(__file__).resolve().parents[2]


def verifies(store: TrustStore, identity: Any) -> bool:
    try:
        PassportVerifier.verify(grown(1, identity=identity), store)
    except VerificationError:
        return False
    return True


def refreshers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "kest-refresh"]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    gc.collect()
    until(lambda: not refreshers())


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    with publishing(jwks(ALICE)) as one:
        yield one


# --- URLs ---


def test_a_url_is_fetched_once_and_then_in_the_background(publisher: Publisher) -> None:
    with TrustStore.from_jwks(publisher.url, **FAST) as store:
        assert publisher.asked == 1
        assert not refreshers()  # nothing runs until it is used
        assert verifies(store, ALICE)
        assert len(refreshers()) == 1
        until(lambda: publisher.asked >= 3)
    assert not refreshers()
    asked = publisher.asked
    assert verifies(store, ALICE)  # what it knew still counts
    assert publisher.asked == asked


def test_rotation_without_a_restart(publisher: Publisher) -> None:
    with TrustStore.from_jwks(publisher.url, **FAST) as store:
        assert verifies(store, ALICE)
        assert not verifies(store, BOB)
        publisher.answer = jwks(BOB)
        until(lambda: verifies(store, BOB))
        assert not verifies(store, ALICE)
        assert list(store) == [BOB.get_identity()]


def test_an_unknown_principal_asks_for_a_refresh_and_does_not_wait(publisher: Publisher) -> None:
    with TrustStore.from_jwks(publisher.url, **SLOW) as store:
        publisher.answer = silent
        before = time.monotonic()
        assert not verifies(store, BOB)
        assert time.monotonic() - before < 2  # silent answers after 30 s, and the timeout is 5
        until(lambda: publisher.asked == 2)
        publisher.answer = jwks(ALICE, BOB)
        publisher.closing.set()
        until(lambda: verifies(store, BOB))


def test_a_key_replaced_under_its_name_asks_for_a_refresh(publisher: Publisher) -> None:
    from kest.core import LocalEd25519Provider

    new = LocalEd25519Provider(ALICE.get_identity(), seed=b"n" * 32)
    with TrustStore.from_jwks(publisher.url, **SLOW) as store:
        publisher.answer = jwks(new)
        assert not verifies(store, new)
        until(lambda: verifies(store, new))


def test_unknown_principals_do_not_hammer_the_publisher(publisher: Publisher) -> None:
    with TrustStore.from_jwks(publisher.url, refresh=3600.0, min_interval=600.0) as store:
        for _ in range(50):
            assert not verifies(store, BOB)
    assert publisher.asked == 1


@pytest.mark.parametrize(("header", "soon"), [("max-age=0", True), ("no-store", True), ('public, max-age="0"', True),
                                              ("max-age=99999999", False), ("s-maxage=0", False), ("x", False)])  # fmt: skip
def test_cache_control_shortens_the_interval_only(header: str, soon: bool) -> None:
    with (
        publishing(jwks(ALICE, cache_control=header)) as publisher,
        TrustStore.from_jwks(publisher.url, **SLOW) as store,
    ):
        document = store._sources[0]._document  # type: ignore[attr-defined]
        assert document._due - time.monotonic() <= (0 if soon else 3600)
        assert soon or document._due - time.monotonic() > 3000


def test_an_outage_leaves_the_last_good_set_and_is_logged_once(publisher: Publisher, caplog: Any) -> None:
    with caplog.at_level(logging.INFO, "kest"), TrustStore.from_jwks(publisher.url, **FAST) as store:
        publisher.answer = body(b"{}", 503)
        assert verifies(store, ALICE)
        until(lambda: publisher.asked >= 5)
        assert verifies(store, ALICE)
        publisher.answer = jwks(ALICE, BOB)
        until(lambda: verifies(store, BOB))
        until(lambda: "up to date again" in caplog.text)
    assert caplog.text.count("last good keys stay in force") == 1
    assert "secret=1" not in caplog.text


def test_after_its_lifetime_nothing_is_believed_until_the_publisher_is_back(publisher: Publisher, caplog: Any) -> None:
    settings = {**FAST, "lifetime": 0.3}
    with TrustStore.from_jwks(publisher.url, **settings) as store:
        publisher.answer = body(b"{}", 503)
        until(lambda: not verifies(store, ALICE))
        with pytest.raises(VerificationError) as caught:
            PassportVerifier.verify(grown(1), store)
        assert "no longer believed" in caught.value.reason
        assert caught.value.index == 0
        assert "127.0.0.1" not in str(caught.value)  # a client learns nothing of our network
        assert caplog.text.count("no longer believed") == 1
        publisher.answer = jwks(ALICE)
        until(lambda: verifies(store, ALICE))


@pytest.mark.parametrize("kind", sorted(BAD))
def test_a_bad_answer_at_construction_names_the_url(kind: str) -> None:
    with publishing(BAD[kind]) as publisher:
        before = time.monotonic()
        with pytest.raises(KestError) as caught:
            TrustStore.from_jwks(publisher.url, timeout=0.4)
        assert time.monotonic() - before < 5
        assert publisher.url.partition("?")[0] in str(caught.value)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize("kind", sorted(BAD))
def test_a_bad_answer_later_changes_nothing(kind: str, publisher: Publisher) -> None:
    with TrustStore.from_jwks(publisher.url, **{**FAST, "timeout": 0.3}) as store:
        assert verifies(store, ALICE)
        publisher.answer = BAD[kind]
        asked = publisher.asked
        until(lambda: publisher.asked >= asked + 2)
        assert verifies(store, ALICE)


@pytest.mark.parametrize("kind", ["endless", "100 MB"])
def test_no_more_is_read_than_is_allowed(kind: str) -> None:
    with publishing(BAD[kind]) as publisher, pytest.raises(FetchError, match="longer than 1000 bytes"):
        fetch(publisher.url, timeout=30, max_bytes=1000)


def test_nobody_there() -> None:
    with pytest.raises(ConfigurationError, match=r"http://127\.0\.0\.1:9/keys.*Check the URL"):
        TrustStore.from_jwks("http://127.0.0.1:9/keys", timeout=2)


@pytest.mark.parametrize(
    "url", ["http://keys.example/", "https://", "https://u:pw@keys.example/", "https://a:x/", "http://10.0.0.1/"]
)
def test_urls_that_are_refused(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        TrustStore.from_jwks(url)
    assert "pw" not in str(caught.value)


def test_plain_http_needs_a_setting_except_on_this_machine() -> None:
    for url in ("http://localhost/", "http://127.9.9.9:8/", "http://[::1]/", "https://keys.example/"):
        check_url(url, "x")
    check_url("http://keys.example/", "x", allow_http=True)
    with pytest.raises(ConfigurationError, match="https"):
        check_url("http://localhost.example/", "x")


def test_no_proxy_for_this_machine_and_the_environments_for_others(publisher: Publisher, monkeypatch: Any) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
        monkeypatch.setenv(name.upper(), "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with TrustStore.from_jwks(publisher.url) as store:
        assert verifies(store, ALICE)
    # our publisher as the proxy: it is asked for a host that does not exist
    monkeypatch.setenv("http_proxy", publisher.url.partition("/keys")[0])
    with TrustStore.from_jwks("http://keys.invalid/", allow_http=True) as store:
        assert verifies(store, ALICE)


@pytest.mark.parametrize("settings", [{"refresh": 0}, {"refresh": 10, "lifetime": 5}, {"timeout": 0}, {"min_interval": -1},
                                      {"lifetime": float("inf")}])  # fmt: skip
def test_impossible_settings(settings: Any, publisher: Publisher) -> None:
    with pytest.raises(ConfigurationError):
        TrustStore.from_jwks(publisher.url, **settings)
    with pytest.raises(ConfigurationError):
        TrustStore.from_jwks({"keys": []}, **{"refresh": 1.0, **settings})


def test_a_store_that_is_dropped_takes_its_thread_along(publisher: Publisher) -> None:
    store = TrustStore.from_jwks(publisher.url, **SLOW)
    assert verifies(store, ALICE)
    assert len(refreshers()) == 1
    del store
    gc.collect()
    until(lambda: not refreshers())


def test_at_the_edge(publisher: Publisher) -> None:
    ran: list[Any] = []
    with TrustStore.from_jwks(publisher.url, **SLOW) as store, serving(service(ran, trust_store=store)) as url:

        def post(identity: Any) -> int:
            return httpx.post(
                f"{url}/work", headers={"baggage": inline(grown(1, identity=identity).entries)}
            ).status_code

        assert post(ALICE) == 200
        assert post(BOB) == 403
        publisher.answer = jwks(ALICE, BOB)
        until(lambda: post(BOB) == 200)
        store.remove(ALICE.get_identity())
        assert post(ALICE) == 403


def test_a_configuration_file_may_name_a_url(publisher: Publisher, tmp_path: Path, monkeypatch: Any) -> None:
    from kest.core import get_active_trust_store

    (tmp_path / "kest.json").write_text(json.dumps({"trust_store": publisher.url}))
    monkeypatch.setenv("KEST_CONFIG", str(tmp_path / "kest.json"))
    configure(clear=True)
    store = get_active_trust_store()
    assert store is not None
    with store:
        assert verifies(store, ALICE)


SCRIPT = """
import os, sys, time
sys.path.insert(0, {tests!r})
from publisher import Publisher, jwks
from wire import ALICE, BOB, grown, until
from kest.core import PassportVerifier, TrustStore

def verifies(store, identity):
    try:
        PassportVerifier.verify(grown(1, identity=identity), store)
    except ValueError:
        return False
    return True

publisher = Publisher(jwks(ALICE))
store = TrustStore.from_jwks(publisher.url, refresh=0.05, timeout=300.0, min_interval=0)
assert verifies(store, ALICE)
"""


def run(script: str) -> subprocess.CompletedProcess[str]:
    code = SCRIPT.format(tests=str(Path(__file__).parent)) + textwrap.dedent(script)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*filter(None, sys.path), str(ROOT)])}
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], env=environment, capture_output=True, text=True, timeout=60
    )


@pytest.mark.skipif("KEST_SANITIZED" in os.environ, reason="AddressSanitizer has locks that a fork leaves locked")
def test_the_child_of_a_fork_refreshes_by_itself() -> None:
    done = run("""
        child = os.fork()
        if child == 0:  # the publisher's thread lives in the parent
            try:
                verifies(store, ALICE)
                until(lambda: verifies(store, BOB))
                os._exit(7)
            finally:
                os._exit(1)
        until(lambda: verifies(store, ALICE))
        publisher.answer = jwks(ALICE, BOB)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        publisher.close()
        sys.exit(code)
    """)
    assert done.returncode == 7, done.stderr


def test_a_fetch_under_way_does_not_keep_the_interpreter() -> None:
    done = run("""
        publisher._server.daemon_threads = True
        publisher.answer = lambda request, closing: time.sleep(300)
        asked = publisher.asked
        until(lambda: publisher.asked > asked)
        publisher._server.shutdown()
        print("end", flush=True)
    """)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "end\n"
    assert "Traceback" not in done.stderr


# --- files ---


@pytest.fixture
def eager(monkeypatch: Any) -> None:
    monkeypatch.setattr(live_document, "STAT_INTERVAL", 0.0)


def write(path: Path, *identities: Any) -> None:
    text = json.dumps({"keys": [one.public_jwk() for one in identities]})
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


@pytest.mark.usefixtures("eager")
def test_a_file_is_read_again_when_it_changes(tmp_path: Path, caplog: Any) -> None:
    path = tmp_path / "keys.json"
    write(path, ALICE)
    store = TrustStore.from_jwks(path)
    ring = store.ring()
    assert store.ring() is ring
    write(path, ALICE, BOB)
    assert verifies(store, BOB)
    with caplog.at_level(logging.INFO, "kest"):
        for broken in (b"{", b'{"keys": [{}]}', b" " * (5 << 20)):
            path.write_bytes(broken)
            assert verifies(store, BOB)
        path.unlink()
        assert verifies(store, BOB)
        assert verifies(store, BOB)
        assert caplog.text.count("stay in force") == 1
        write(path, HOP)
        assert verifies(store, HOP)
        assert not verifies(store, BOB)
    assert "up to date again" in caplog.text
    assert not refreshers()


def test_a_file_is_not_looked_at_for_every_request(tmp_path: Path, monkeypatch: Any) -> None:
    path = tmp_path / "keys.json"
    write(path, ALICE)
    store = TrustStore.from_jwks(path)
    monkeypatch.setattr(live_document, "STAT_INTERVAL", 3600.0)
    path.unlink()
    assert verifies(store, ALICE)
    write(path, BOB)
    assert not verifies(store, BOB)


# --- several sources ---


class Directory:
    """A source of another kind."""

    def __init__(self) -> None:
        self.now = KeySnapshot()
        self.hints = 0
        self.closed = False

    def snapshot(self) -> KeySnapshot:
        return self.now

    def refresh_soon(self) -> None:
        self.hints += 1

    def close(self) -> None:
        self.closed = True


def test_sources_of_other_kinds_feed_the_same_store(tmp_path: Path) -> None:
    from kest.core.grants import make_grant

    write(tmp_path / "keys.json", ALICE)
    directory = Directory()
    assert isinstance(directory, KeySource)
    with TrustStore({HOP.get_identity(): HOP}) as store:
        store.add_source(JWKSSource(tmp_path / "keys.json"))
        store.add_source(directory)
        assert verifies(store, ALICE)
        assert verifies(store, HOP)
        assert not verifies(store, BOB)
        assert directory.hints == 1
        directory.now = KeySnapshot((make_grant(BOB.get_identity(), BOB, max_trust=100),))
        assert verifies(store, BOB)
        assert BOB.get_identity() in store
        assert len(store) == 3
        directory.now = KeySnapshot(problem="the directory has expired")
        with pytest.raises(VerificationError, match="the directory has expired"):
            PassportVerifier.verify(grown(1, identity=BOB), store)
        assert verifies(store, ALICE)
    assert directory.closed
    with pytest.raises(TypeError, match="refresh_soon"):
        store.add_source(object())  # type: ignore[arg-type]


def test_what_is_removed_stays_removed_whatever_a_source_says(tmp_path: Path) -> None:
    write(tmp_path / "keys.json", ALICE, BOB)
    store = TrustStore.from_jwks(tmp_path / "keys.json")
    assert store.remove(ALICE.get_identity()) is True
    assert store.remove(ALICE.get_identity()) is False
    assert not verifies(store, ALICE)
    assert verifies(store, BOB)
    assert list(store) == [BOB.get_identity()]
    store.add(ALICE.get_identity(), ALICE)
    assert verifies(store, ALICE)


def test_a_store_without_keys_yet_is_still_a_store() -> None:
    assert not TrustStore()
    store = TrustStore()
    store.add_source(Directory())
    assert store
    assert len(store) == 0
    with pytest.raises(KeyFormatError):
        store.add("", ALICE)
