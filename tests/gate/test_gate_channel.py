"""The secure channel: what is authenticated, what is refused, sessions."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kest._kestcore import aead_open, aead_seal
from kest.gate import ChannelError, GateInputError, InMemoryReplayStore, KeyPair, SecureChannel, SigningError
from kest.gate.crypto import cbor, channel, channel_format, clock

Ends = tuple[SecureChannel, SecureChannel]


@pytest.fixture(scope="module")
def keys() -> tuple[KeyPair, KeyPair, KeyPair]:
    return KeyPair.generate(), KeyPair.generate(), KeyPair.generate()


@pytest.fixture
def ends(keys: tuple[KeyPair, KeyPair, KeyPair]) -> Ends:
    alice, bob, _ = keys
    return SecureChannel(alice, bob.public_keys()), SecureChannel(bob, alice.public_keys())


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Stops the clock of signed things."""
    return lambda seconds: monkeypatch.setattr(clock, "now", lambda: seconds)


def test_a_message_arrives(ends: Ends) -> None:
    alice, bob = ends
    sealed = alice.send_signed(b"permit: issue_refund", context_id="issue_refund", correlation_id="eval-1")
    message = bob.receive(sealed, "issue_refund")
    assert (message.data, message.context_id, message.correlation_id) == (
        b"permit: issue_refund",
        "issue_refund",
        "eval-1",
    )
    assert (message.sender, message.sequence) == (alice.local_key_id, 0)
    assert abs(message.sent_at - clock.now()) < 60
    assert bob.receive(alice.send_signed(b"", "c"), "c").sequence == 1
    assert alice.receive_signed(bob.send_signed(b"back", "c"), "c") == b"back"
    assert bob.receive_data(alice.send_data(b"opaque")) == b"opaque"
    assert repr(alice) == f"SecureChannel(local={alice.local_key_id}, remote={alice.remote_key_id})"


@pytest.mark.parametrize("size", [0, 1_000, 100_000, 1_000_000])
def test_messages_hardly_grow(size: int, ends: Ends) -> None:
    data = os.urandom(size)
    sealed = ends[0].send_signed(data, context_id="c" * 50, correlation_id="i" * 50)
    assert len(sealed) <= size * 1.12 + 6_000
    assert len(ends[0].send_data(data)) <= size + 1_600
    assert ends[1].receive_signed(sealed, "c" * 50) == data


def test_replay(ends: Ends, keys: tuple[KeyPair, KeyPair, KeyPair]) -> None:
    alice, bob = ends
    sealed, data = alice.send_signed(b"once", "c"), alice.send_data(b"once")
    assert bob.receive_signed(sealed, "c") == b"once"
    assert bob.receive_data(data) == b"once"
    another = SecureChannel(keys[1], keys[0].public_keys())  # of the same process: it knows as well
    for end in (bob, another):
        with pytest.raises(ChannelError, match=r"replay detected: nonce .* already seen"):
            end.receive_signed(sealed, "c")
        with pytest.raises(ChannelError, match="replay"):
            end.receive_data(data)


def test_a_wrong_context_does_not_use_a_message_up(ends: Ends) -> None:
    alice, bob = ends
    sealed = alice.send_signed(b"x", "refunds")
    with pytest.raises(ChannelError, match="context mismatch: signed payload context is 'refunds', expected 'payouts'"):
        bob.receive_signed(sealed, "payouts")
    assert bob.receive_signed(sealed, "refunds") == b"x"


def test_replay_after_a_restart(tmp_path: Path, keys: tuple[KeyPair, KeyPair, KeyPair]) -> None:
    alice, bob, _ = keys
    sender = SecureChannel(alice, bob.public_keys())
    sealed = sender.send_signed(b"once", "c")
    path = tmp_path / "seen.sqlite"
    assert SecureChannel(bob, alice.public_keys(), replay_store=path).receive_signed(sealed, "c") == b"once"
    with pytest.raises(ChannelError, match="replay"):
        SecureChannel(bob, alice.public_keys(), replay_store=str(path)).receive_signed(sealed, "c")


def test_without_a_store_nothing_from_before_this_process_is_taken(
    keys: tuple[KeyPair, KeyPair, KeyPair], monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob, _ = keys
    sealed = SecureChannel(alice, bob.public_keys()).send_signed(b"once", "c")

    class Later:
        store, since_ms = InMemoryReplayStore(), int(clock.now() * 1000) + 1

    monkeypatch.setattr(channel, "_memory", Later())
    with pytest.raises(ChannelError, match=r"replay.*give the channel a replay_store"):
        SecureChannel(bob, alice.public_keys()).receive_signed(sealed, "c")
    own = SecureChannel(bob, alice.public_keys(), replay_store=InMemoryReplayStore())
    assert own.receive_signed(sealed, "c") == b"once"


def test_a_store_that_cannot_tell(keys: tuple[KeyPair, KeyPair, KeyPair]) -> None:
    alice, bob, _ = keys
    end = SecureChannel(bob, alice.public_keys(), replay_store=InMemoryReplayStore(max_entries=1))
    sender = SecureChannel(alice, bob.public_keys())
    assert end.receive_signed(sender.send_signed(b"1", "c"), "c")
    with pytest.raises(ChannelError, match="replay cannot be ruled out"):
        end.receive_signed(sender.send_signed(b"2", "c"), "c")


def test_for_one_recipient_from_one_sender(keys: tuple[KeyPair, KeyPair, KeyPair], ends: Ends) -> None:
    alice, bob, carol = keys
    sealed = ends[0].send_signed(b"for bob", "c")
    with pytest.raises(ChannelError, match="recipient key id mismatch"):
        SecureChannel(carol, alice.public_keys()).receive_signed(sealed, "c")
    with pytest.raises(ChannelError, match="not from this sender"):
        SecureChannel(bob, carol.public_keys()).receive_signed(sealed, "c")
    with pytest.raises(ChannelError, match="recipient key id mismatch"):
        ends[0].receive_signed(sealed, "c")  # reflected to its sender
    redirected = cbor.decode(sealed)
    redirected[2] = carol.id
    with pytest.raises(ChannelError, match="decryption failed"):
        SecureChannel(carol, alice.public_keys()).receive_signed(cbor.encode(redirected), "c")


def test_what_bob_received_he_cannot_pass_on_as_alices(keys: tuple[KeyPair, KeyPair, KeyPair], ends: Ends) -> None:
    """Bob opens a message and seals its signed header again, for Carol or for himself: neither is Alice's message."""
    alice, bob, carol = keys
    _, signed, data = channel_format.open_message(
        ends[0].send_signed(b"pay", "c"), channel_format.SIGNED, alice.id, bob
    )
    for victim in (carol, bob):
        forged = channel_format.start(channel_format.SIGNED, alice.id, victim.public_keys())
        sealed = channel_format.seal_message(forged, signed, data)
        with pytest.raises(ChannelError, match="signature verification failed"):
            SecureChannel(victim, alice.public_keys()).receive_signed(sealed, "c")


def test_other_data_under_the_same_header(keys: tuple[KeyPair, KeyPair, KeyPair], ends: Ends) -> None:
    alice, bob, _ = keys
    sealed = ends[0].send_signed(b"pay 5", "c")
    secret, signed, _ = channel_format.open_message(sealed, channel_format.SIGNED, alice.id, bob)
    parts = cbor.decode(sealed)
    ahead = channel_format._ahead(*parts[1:5])
    forged = channel_format.seal_message(channel_format.Sealed(secret, ahead), signed, b"pay 500")
    with pytest.raises(ChannelError, match="signature verification failed: the header belongs to other data"):
        ends[1].receive_signed(forged, "c")


def test_kinds_do_not_mix(ends: Ends) -> None:
    alice, bob = ends
    signed, data, opening = alice.send_signed(b"s", "c"), alice.send_data(b"d"), alice.session("c").opening
    for sealed, receive in (
        (data, lambda s: bob.receive_signed(s, "")),
        (signed, bob.receive_data),
        (opening, lambda s: bob.receive_signed(s, "c")),
        (signed, lambda s: bob.accept(s, "c")),
        (data, lambda s: bob.accept(s, "")),
    ):
        with pytest.raises(ChannelError, match="expected"):
            receive(sealed)
        relabelled = cbor.decode(sealed)
        for kind in (0, 1, 2):
            if relabelled[1] != kind:
                with pytest.raises(ChannelError):
                    receive(cbor.encode([relabelled[0], kind, *relabelled[2:]]))


def test_an_unsigned_message_is_nobodys(ends: Ends, keys: tuple[KeyPair, KeyPair, KeyPair]) -> None:
    """Anybody can seal for Bob. Such a message says so, and is never taken for a signed one."""
    _, bob, carol = keys
    as_alice = channel_format.start(channel_format.SIGNED, ends[0].local_key_id, bob.public_keys())
    with pytest.raises(ChannelError, match="envelope parse"):
        ends[1].receive_signed(channel_format.seal_message(as_alice, b"no signature", b"data"), "c")
    impostor = KeyPair.generate(id=ends[0].local_key_id)
    with pytest.raises(ChannelError, match="signature verification failed"):
        ends[1].receive_signed(SecureChannel(impostor, bob.public_keys()).send_signed(b"x", "c"), "c")
    assert carol.id != impostor.id


def test_age(ends: Ends, keys: tuple[KeyPair, KeyPair, KeyPair], at: Callable[[float], None]) -> None:
    start = clock.now()
    sealed = ends[0].send_signed(b"x", "c")
    at(start + 301)
    with pytest.raises(ChannelError, match="expired"):
        ends[1].receive_signed(sealed, "c")
    at(start - 10)
    with pytest.raises(ChannelError, match="future"):
        ends[1].receive_signed(sealed, "c")
    at(start + 301)
    patient = SecureChannel(keys[1], keys[0].public_keys(), max_age=3600, replay_store=InMemoryReplayStore())
    assert patient.receive_signed(sealed, "c") == b"x"
    for bad in (0, -1, 1e9):
        with pytest.raises(GateInputError):
            SecureChannel(keys[1], keys[0].public_keys(), max_age=bad)


def test_expired_keys_open_no_channel(keys: tuple[KeyPair, KeyPair, KeyPair], at: Callable[[float], None]) -> None:
    start = clock.now()
    short, other = KeyPair.generate_with_expiry(60), keys[0]
    there, back = SecureChannel(short, other.public_keys()), SecureChannel(other, short.public_keys())
    sealed, session = there.send_signed(b"x", "c"), there.session("c")
    accepted = back.accept(session.opening, "c")
    at(start + 62)
    for make in (lambda: SecureChannel(short, other.public_keys()), lambda: SecureChannel(other, short.public_keys())):
        with pytest.raises(SigningError, match="expired"):
            make()
    for send in (
        lambda: there.send_signed(b"", "c"),
        lambda: back.send_data(b""),
        lambda: session.send(b""),
        lambda: accepted.send(b""),
    ):
        with pytest.raises(SigningError, match="expired"):
            send()
    with pytest.raises(ChannelError, match="expired"):
        back.receive_signed(sealed, "c")


def test_arguments(ends: Ends, keys: tuple[KeyPair, KeyPair, KeyPair]) -> None:
    alice, bob = ends
    for wrong in (
        lambda: alice.send_signed("text", "c"),
        lambda: alice.send_signed(b"", 5),
        lambda: bob.receive_signed("x", "c"),
        lambda: bob.receive_signed(b"", None),
        lambda: SecureChannel(keys[0].public_keys(), keys[0].public_keys()),
        lambda: SecureChannel(keys[0], keys[1]),
    ):
        with pytest.raises(TypeError):
            wrong()  # type: ignore[no-untyped-call]
    with pytest.raises(GateInputError):
        alice.send_signed(b"", "c" * 1025)
    assert bob.receive_signed(alice.send_signed(bytearray(b"x"), "c"), "c") == b"x"
    with pytest.raises(GateInputError, match="replay_store"):
        SecureChannel(keys[0], keys[1].public_keys(), replay_store=object())  # type: ignore[arg-type]


FLIPS: list[Any] = []


def flips() -> None:
    if not FLIPS:
        alice, bob = KeyPair.generate(), KeyPair.generate()
        sender = SecureChannel(alice, bob.public_keys())
        FLIPS.append(SecureChannel(bob, alice.public_keys()))
        FLIPS.append({"signed": sender.send_signed(b"x" * 50, "c"), "data": sender.send_data(b"y" * 50)})
        FLIPS[1]["opening"] = sender.session("c").opening


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_flip_is_refused(data: st.DataObject) -> None:
    flips()
    end, messages = FLIPS[:2]
    kind = data.draw(st.sampled_from(sorted(messages)))
    good = messages[kind]
    place, bit = data.draw(st.integers(0, len(good) - 1)), data.draw(st.integers(1, 255))
    bad = good[:place] + bytes([good[place] ^ bit]) + good[place + 1 :]
    receivers = {
        "signed": lambda m: end.receive(m, "c"),
        "data": end.receive_data,
        "opening": lambda m: end.accept(m, "c"),
    }
    receive = receivers[kind]
    with pytest.raises(ChannelError):
        receive(bad)
    with pytest.raises(ChannelError):
        receive(good[:place])


@settings(max_examples=100, deadline=None)
@given(junk=st.binary(max_size=200))
def test_what_is_sealed_need_not_be_sane(junk: bytes) -> None:
    """Anybody can seal anything for a recipient: every part of the inside is refused with the same class."""
    flips()
    end = FLIPS[0]
    for kind, receive in ((0, end.receive_data), (1, lambda m: end.receive(m, "c")), (2, lambda m: end.accept(m, "c"))):
        outer = channel_format.start(kind, end.remote_key_id, end._local.public_keys())
        with pytest.raises(ChannelError):
            receive(channel_format.seal_message(outer, junk, junk))
        key = outer.secret.derive(b"message", 56)
        sealed = aead_seal(key[:32], key[32:], junk, outer.ahead)
        assert aead_open(key[:32], key[32:], sealed, outer.ahead) == junk
        with pytest.raises(ChannelError):
            receive(outer.ahead + cbor.encode(sealed))
    with pytest.raises(ChannelError):
        end.receive_data(junk)


def test_a_low_order_point_is_refused(ends: Ends, keys: tuple[KeyPair, KeyPair, KeyPair]) -> None:
    parts = cbor.decode(ends[0].send_data(b"x"))
    parts[4] = bytes(32)
    with pytest.raises(ChannelError, match="ephemeral key"):
        ends[1].receive_data(cbor.encode(parts))


# --- sessions ---


def test_a_session(ends: Ends) -> None:
    alice, bob = ends
    there = alice.session("c", "i")
    back = bob.accept(there.opening, "c")
    assert len(there.opening) < 6_000
    for number in range(50):
        frame = there.send(b"to %d" % number)
        assert len(frame) <= 5 + 24 + 17 + 6
        assert back.receive(frame) == b"to %d" % number
        assert there.receive(back.send(b"from %d" % number)) == b"from %d" % number
    large = os.urandom(500_000)
    assert back.receive(there.send(large)) == large
    assert not back.is_finished
    assert back.receive(there.close()) == b""
    assert back.is_finished
    with pytest.raises(ChannelError, match="closed"):
        there.send(b"x")
    with pytest.raises(ChannelError, match="ended"):
        back.receive(b"x" * 30)
    assert there.receive(back.send(b"last", last=True)) == b"last", "the other direction closes by itself"
    assert there.is_finished
    assert "finished=true" in repr(there)


def test_a_session_takes_only_its_next_frame(ends: Ends) -> None:
    alice, bob = ends
    there = alice.session("c")
    back = bob.accept(there.opening, "c")
    frames = [there.send(b"%d" % number) for number in range(4)]
    for wrong in (
        frames[1],
        frames[0][:-1],
        frames[0] + b"x",
        b"",
        b"KSS1\x00",
        there.opening,
        b"KSS1\x01" + frames[0][5:],
    ):
        with pytest.raises(ChannelError):
            back.receive(wrong)
    assert back.receive(frames[0]) == b"0"
    with pytest.raises(ChannelError):
        back.receive(frames[0])  # a replay
    with pytest.raises(ChannelError):
        back.receive(frames[2])  # a loss
    assert back.receive(frames[1]) == b"1"
    with pytest.raises(ChannelError):
        there.receive(frames[2])  # reflected
    with pytest.raises(ChannelError):
        back.receive(frames[2][:5] + frames[3][5:])
    assert back.receive(frames[2]) == b"2"
    other = bob.accept((second := alice.session("c")).opening, "c")
    with pytest.raises(ChannelError):
        other.receive(frames[0])  # of another session
    assert other.receive(second.send(b"x")) == b"x"


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_flip_in_a_frame_is_refused(data: st.DataObject) -> None:
    flips()
    if len(FLIPS) < 4:
        end = FLIPS[0]
        sender = SecureChannel(KeyPair.generate(), end._local.public_keys())
        receiver = SecureChannel(end._local, sender._local.public_keys())
        there = sender.session("c")
        FLIPS.extend((receiver.accept(there.opening, "c"), there.send(b"hello")))
    session, frame = FLIPS[2:4]
    place, bit = data.draw(st.integers(0, len(frame) - 1)), data.draw(st.integers(1, 255))
    with pytest.raises(ChannelError):
        session.receive(frame[:place] + bytes([frame[place] ^ bit]) + frame[place + 1 :])


def test_an_opening_opens_once_and_for_its_context(ends: Ends) -> None:
    alice, bob = ends
    there = alice.session("refunds")
    with pytest.raises(ChannelError, match="context mismatch"):
        bob.accept(there.opening, "payouts")
    assert bob.accept(there.opening, "refunds")
    with pytest.raises(ChannelError, match="replay"):
        bob.accept(there.opening, "refunds")


def test_a_session_is_for_two_threads(ends: Ends) -> None:
    from concurrent.futures import ThreadPoolExecutor

    alice, bob = ends
    there = alice.session("c")
    back = bob.accept(there.opening, "c")
    with ThreadPoolExecutor(4) as pool:
        frames = list(pool.map(lambda i: there.send(os.urandom(20_000)), range(20)))
    assert len(frames) == 20
    opened = 0
    waiting = list(frames)
    while waiting:  # threads handed them over in some order; only one is the next
        for frame in waiting:
            try:
                back.receive(frame)
            except ChannelError:
                continue
            waiting.remove(frame)
            opened += 1
            break
        else:
            raise AssertionError("no frame fits")
    assert opened == 20


def test_after_a_fork(run_python: Any) -> None:
    """Messages of parent and child are no replays of each other, and no two processes go on with one session."""
    run_python(
        "import os\n"
        "from kest.gate import ChannelError, KeyPair, SecureChannel\n"
        "alice, bob = KeyPair.generate(), KeyPair.generate()\n"
        "there, back = SecureChannel(alice, bob.public_keys()), SecureChannel(bob, alice.public_keys())\n"
        "session = there.session('c')\n"
        "accepted = back.accept(session.opening, 'c')\n"
        "reading, writing = os.pipe()\n"
        "pid = os.fork()\n"
        "if not pid:\n"
        "    try: session.send(b'x')\n"
        "    except ChannelError: os.write(writing, there.send_signed(b'child', 'c'))\n"
        "    os._exit(0)\n"
        "os.close(writing)\n"
        "assert back.receive_signed(there.send_signed(b'parent', 'c'), 'c') == b'parent'\n"
        "with os.fdopen(reading, 'rb') as pipe: sealed = pipe.read()\n"
        "os.waitpid(pid, 0)\n"
        "assert back.receive_signed(sealed, 'c') == b'child'\n"
        "assert accepted.receive(session.send(b'x')) == b'x'\n"
    )
