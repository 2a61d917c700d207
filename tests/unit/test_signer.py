"""The secret key in the C core (ATTACKS D4): no form of it leaves the object, and nothing of it stays behind."""

from __future__ import annotations

import copy
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kest._kestcore import PublicKey, Signer, b64url_decode
from kest.core import LocalEd25519Provider, MockIdentityProvider, StaticIdentity
from kest.errors import KeyFormatError

SEED = bytes(range(100, 132))
# RFC 8032, section 7.1, test 1
RFC_SEED = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
RFC_PUBLIC = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
RFC_SIGNATURE = bytes.fromhex(
    "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
    "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
)


def test_rfc_8032() -> None:
    signer = Signer("p", RFC_SEED)
    assert signer.public_key == RFC_PUBLIC
    assert signer.sign(b"") == RFC_SIGNATURE
    assert signer.export_seed() == RFC_SEED
    assert PublicKey.from_raw(RFC_PUBLIC).verify(b"", RFC_SIGNATURE)


def test_sign_jws() -> None:
    signer = Signer("spiffe://x/ü", SEED)
    jws = signer.sign_jws(b'{"a":1}')
    header, payload, signature = jws.split(".")
    assert json.loads(b64url_decode(header)) == {"alg": "EdDSA", "kid": "spiffe://x/ü", "typ": "JWS"}
    assert b64url_decode(payload) == b'{"a":1}'
    assert PublicKey.from_raw(signer.public_key).verify(f"{header}.{payload}".encode(), b64url_decode(signature))
    other = json.loads(b64url_decode(signer.sign_jws(b"", "kest-outcome+jws").split(".")[0]))
    assert other["typ"] == "kest-outcome+jws"


@pytest.mark.parametrize("data", [b"x", bytearray(b"x"), memoryview(b"x")])
def test_any_buffer_can_be_signed(data: Any) -> None:
    signer = Signer("p", SEED)
    assert signer.sign(data) == signer.sign(b"x")
    assert signer.sign_jws(data) == signer.sign_jws(b"x")


@pytest.mark.parametrize("seed", [b"", b"x", b"x" * 31, b"x" * 33, b"x" * 64])
def test_seeds_are_32_bytes(seed: bytes) -> None:
    with pytest.raises(KeyFormatError) as caught:
        Signer("p", seed)
    assert seed.decode() * 2 not in str(caught.value) or len(seed) < 2


@pytest.mark.parametrize("args", [(), ("",), (None,), (5,), (b"p",), ("p", "x" * 32), ("p", 5), ("\ud800",)])
def test_malformed_arguments(args: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        Signer(*args)


@pytest.mark.parametrize("argument", ["text", None, 5, [b"x"]])
def test_only_bytes_are_signed(argument: Any) -> None:
    signer = Signer("p", SEED)
    for method in (signer.sign, signer.sign_jws):
        with pytest.raises(TypeError):
            method(argument)


def forms(value: object) -> list[str]:
    return [repr(value), str(value), f"{value}", ascii(value), json.dumps(dir(value))]


def holders() -> list[Any]:
    return [
        Signer("p", SEED),
        LocalEd25519Provider("p", SEED),
        StaticIdentity("p", SEED),
        StaticIdentity("p", SEED.hex()),
    ]


def leaks(text: str) -> bool:
    import base64

    candidates = (
        SEED.hex(),
        base64.b64encode(SEED).decode(),
        base64.urlsafe_b64encode(SEED).decode()[:40],
        repr(SEED)[2:-1],
    )
    return any(candidate in text for candidate in candidates)


@pytest.mark.parametrize("index", range(4))
def test_no_form_of_text_shows_the_key(index: int) -> None:
    holder = holders()[index]
    for text in forms(holder):
        assert not leaks(text)
    for name in dir(holder):
        if name.startswith("__") or name in ("export_seed", "signer"):
            continue
        try:
            value = getattr(holder, name)
        except Exception:
            continue
        assert not leaks(repr(value)), name


@pytest.mark.parametrize("index", range(4))
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_never_pickled(index: int, protocol: int) -> None:
    holder = holders()[index]
    with pytest.raises(Exception) as caught:
        pickle.dumps(holder, protocol)
    assert not leaks(str(caught.value))
    with pytest.raises(Exception):
        pickle.dumps({"nested": [holder]}, protocol)


def test_a_signer_is_never_copied() -> None:
    for copier in (copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="secret"):
            copier(Signer("p", SEED))
        identity = LocalEd25519Provider("p", SEED)
        assert copier(identity) is identity


def test_a_signer_cannot_be_subclassed_or_changed() -> None:
    with pytest.raises(TypeError):
        type("Sub", (Signer,), {})
    with pytest.raises((AttributeError, TypeError)):
        Signer.sign = lambda self, message: b""  # type: ignore[method-assign]
    signer = Signer("p", SEED)
    for name in ("principal", "public_key", "anything"):
        with pytest.raises(AttributeError):
            setattr(signer, name, b"x")


def test_exceptions_and_logs_do_not_show_the_key(caplog: pytest.LogCaptureFixture) -> None:
    import traceback

    caplog.set_level(0)
    for make in (lambda: Signer("p", SEED + b"x"), lambda: StaticIdentity("p", SEED + b"x"), lambda: Signer("", SEED),
                 lambda: StaticIdentity("p", SEED.hex() + "00")):  # fmt: skip
        with pytest.raises(KeyFormatError) as caught:
            make()
        assert not leaks("".join(traceback.format_exception_only(type(caught.value), caught.value)))
    assert not leaks(caplog.text)


def test_the_seed_argument_may_be_wiped_by_its_owner() -> None:
    seed = bytearray(SEED)
    signer = Signer("p", seed)
    seed[:] = bytes(32)
    assert signer.export_seed() == SEED


def test_random_keys_differ_and_mock_keys_do_not() -> None:
    assert len({Signer("p").public_key for _ in range(50)}) == 50
    assert MockIdentityProvider("p").sign(b"x") == MockIdentityProvider("p").sign(b"x")


CHILD = """
import gc, sys
from kest._kestcore import Signer
signers = [Signer("spiffe://kest.test/child") for _ in range(3)]
for signer in signers:
    signer.sign(b"message"); signer.sign_jws(b"{}")
for signer in signers:
    print(signer.public_key.hex(), flush=True)
sys.stdin.readline()
del signer, signers
gc.collect()
print("gone", flush=True)
sys.stdin.readline()
"""


def regions(pid: int) -> list[tuple[int, int, str, set[str]]]:
    """(start, end, permissions, VmFlags) of each mapping (proc(5))."""
    found: list[tuple[int, int, str, set[str]]] = []
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        words = line.split()
        if "-" in words[0] and not words[0].endswith(":"):
            start, end = (int(part, 16) for part in words[0].split("-"))
            found.append((start, end, words[1], set()))
        elif words[0] == "VmFlags:":
            found[-1][3].update(words[1:])
    return found


def memory(pid: int, start: int, end: int) -> bytes:
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as file:
        try:
            file.seek(start)
            return file.read(end - start) or b""
        except (OSError, ValueError, OverflowError):
            return b""  # vvar, vsyscall


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.skipif("KEST_SANITIZED" in os.environ, reason="AddressSanitizer has a memory of its own")
def test_keys_are_locked_read_only_kept_out_of_dumps_and_wiped(tmp_path: Path) -> None:
    import kest

    child = subprocess.Popen(
        [sys.executable, "-c", CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(kest.__file__).resolve().parent.parent)},
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        public = [bytes.fromhex(child.stdout.readline()) for _ in range(3)]
        try:
            mapped = regions(child.pid)
            with open(f"/proc/{child.pid}/mem", "rb"):
                pass
        except PermissionError:
            pytest.skip("this system does not let a process read its child's memory")
        seeds: list[bytes] = []
        for start, end, permissions, flags in mapped:
            if permissions != "r--p" or end - start > 1 << 16:
                continue
            content = memory(child.pid, start, end)
            for key in public:
                at = content.find(key)
                if at >= 32 and content[at - 32 : at] not in (b"", bytes(32)):
                    seed = content[at - 32 : at]
                    if Signer("check", seed).public_key == key:
                        seeds.append(seed)
                        assert "dd" in flags, "a core dump would contain the key"
                        assert "lo" in flags or _no_locking(), "the key can be swapped out"
        assert len(seeds) == 3, "the keys are not in read-only pages"
        assert copies(child.pid, seeds) == 3, "there are copies outside the protected pages"
        child.stdin.write("\n")
        child.stdin.flush()
        assert child.stdout.readline() == "gone\n"
        assert copies(child.pid, seeds) == 0, "something of a key outlived its signer"
        child.stdin.write("\n")
        child.stdin.flush()
        assert child.wait(10) == 0
    finally:
        child.kill()
        child.wait()
        child.stdin.close()
        child.stdout.close()


def copies(pid: int, seeds: list[bytes]) -> int:
    total = 0
    for start, end, permissions, _ in regions(pid):
        if permissions.startswith("r"):
            content = memory(pid, start, end)
            total += sum(content.count(seed) for seed in seeds)
    return total


def _no_locking() -> bool:
    import resource

    return 0 <= resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] < 64 * 1024


def test_what_is_signed_is_what_readers_take() -> None:
    """A JWS of 16 MiB at most: the header counts, too."""
    signer = Signer("spiffe://kest.test/a", bytes(32))
    around = len(signer.sign_jws(b"")) - 2  # header and signature
    most = (16 * 1024 * 1024 - around - 2) // 4 * 3
    assert len(signer.sign_jws(bytes(most))) <= 16 * 1024 * 1024
    with pytest.raises(ValueError, match="16 MiB"):
        signer.sign_jws(bytes(most + 4))
    with pytest.raises(ValueError, match="16 MiB"):
        signer.sign_jws(bytes(most), "a-much-longer-typ-than-before")
