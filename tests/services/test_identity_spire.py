"""SPIREProvider and trust bundles against real SPIRE: rotation, federation, restarts, and every way of getting no SVID."""

from __future__ import annotations

import base64
import json
import os
import socketserver
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.serialization import Encoding
from kest_services import components
from kest_services.processes import Processes
from kest_services.service import wait_until
from kest_services.spire import SpireAgent, SpireServer
from spiffe import TrustDomain, X509Source

from kest import _kestcore
from kest.cli.main import main
from kest.core import (
    Passport,
    PassportVerifier,
    SPIREProvider,
    TrustStore,
    VerificationError,
    configure,
    get_default_identity,
    kest_verified,
)
from kest.core.context import get_current_passport, lineage
from kest.core.trust_sources import SpiffeBundleSource
from kest.errors import IdentityError, KestError

TIERS = ("enterprise", "platform", "app", "function")
TTL = 6  # seconds; renewed after half of it
SIGNATURES = 10_000
FLOW = 500


@pytest.fixture(scope="module")
def spire(tmp_path_factory: pytest.TempPathFactory, built: Callable[[str], Path]) -> Iterator[SimpleNamespace]:
    """Two trust domains; workloads of the first trust the second, but not the other way round."""
    built("spire")
    folder = tmp_path_factory.mktemp("spire")
    with (
        Processes(folder) as processes,
        SpireServer(processes, folder / "s1") as server,
        SpireServer(processes, folder / "s2", trust_domain="partner.test") as partner,
    ):
        server.federate(partner)
        shop = server.register("/shop", federates_with=[partner])
        brief = server.register("/brief", ttl=TTL)
        supplier = partner.register("/supplier")
        with (
            SpireAgent(processes, folder / "a1", server) as agent,
            SpireAgent(processes, folder / "a2", partner) as partners,
        ):
            for one, workload in ((agent, shop), (agent, brief), (partners, supplier)):
                one.wait_for_svid(workload)
            yield SimpleNamespace(
                server=server, agent=agent, partners=partners, shop=shop, brief=brief, supplier=supplier
            )


@pytest.fixture
def shop(spire: SimpleNamespace, recording: Any) -> Iterator[SPIREProvider]:
    """The identity of this process in the first domain, configured."""
    identity = SPIREProvider(spire.agent.socket, spiffe_id=spire.shop)
    configure(engine=recording, identity=identity)
    yield identity
    identity.close()


@pytest.fixture
def source(spire: SimpleNamespace) -> Iterator[X509Source]:
    """What the first domain's agent tells its workloads to trust."""
    with X509Source(socket_path=spire.agent.url, timeout_in_seconds=20) as live:
        yield live


def header(jws: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(_kestcore.b64url_decode(jws.partition(".")[0]))
    return found


def work(identity: Any = None, times: int = 1) -> Passport:
    """The passport of one flow with this many calls."""
    step = kest_verified("work", identity=identity)(lambda: None)
    with lineage():
        for _ in range(times):
            step()
        return get_current_passport()


def refusal(passport: Passport, store: TrustStore) -> str:
    with pytest.raises(VerificationError) as caught:
        PassportVerifier.verify(passport, store)
    return caught.value.reason


def test_an_entry_is_signed_with_the_svid(spire: SimpleNamespace, shop: SPIREProvider) -> None:
    (jws,) = work().entries
    assert header(jws) == {"alg": "ES256", "kid": spire.shop, "typ": "JWS", "x5c": shop.x5c}
    leaf = x509.load_der_x509_certificate(base64.b64decode(shop.x5c[0]))
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [spire.shop]
    signature = _kestcore.b64url_decode(jws.rpartition(".")[2])
    assert len(signature) == 64
    key = leaf.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    numbers = [int.from_bytes(half, "big") for half in (signature[:32], signature[32:])]
    key.verify(utils.encode_dss_signature(*numbers), jws.rpartition(".")[0].encode(), ec.ECDSA(hashes.SHA256()))


async def test_it_verifies_by_every_form_of_the_bundle(
    spire: SimpleNamespace, shop: SPIREProvider, source: X509Source, tmp_path: Path
) -> None:
    step = kest_verified("work")(lambda: None)

    async def later() -> None:
        step()

    await kest_verified("work")(later)()
    passport = get_current_passport()
    assert len(passport) == 2
    bundles = source.get_x509_context().x509_bundle_set
    bundle = source.get_bundle_for_trust_domain(TrustDomain("kest.test"))
    document, pem = tmp_path / "bundle.json", tmp_path / "bundle.pem"
    document.write_text(spire.server.bundle())
    pem.write_text(spire.server.bundle("pem"))
    (tmp_path / "passport.json").write_text(passport.serialize())
    for file in (document, pem):
        arguments = ["--spiffe-bundle", str(file), "--trust-domain", "kest.test"]
        assert main(["verify", str(tmp_path / "passport.json"), *arguments]) == 0
    for given in (source, bundles, bundle, document, pem, json.loads(spire.server.bundle())):
        with TrustStore.from_spiffe_bundle(given, "kest.test") as store:
            assert PassportVerifier.verify(passport, store).principals == {spire.shop}


def test_other_domains_verify_through_their_federated_bundle_and_not_without(
    spire: SimpleNamespace, shop: SPIREProvider, source: X509Source
) -> None:
    supplier = SPIREProvider(spire.partners.url)
    try:
        assert supplier.get_identity() == spire.supplier
        with lineage():
            kest_verified("work")(lambda: kest_verified("work", identity=supplier)(lambda: None)())()
            passport = get_current_passport()
    finally:
        supplier.close()
    own = TrustStore.from_spiffe_bundle(source, "kest.test")
    assert refusal(passport, own) == "no key is known for the principal"
    federated = TrustStore.from_spiffe_bundle(source, "kest.test")
    federated.add_source(SpiffeBundleSource(source, "partner.test"))
    assert PassportVerifier.verify(passport, federated).principals == {spire.shop, spire.supplier}
    # The trust is not mutual: the partner's workloads were never told of the first domain.
    with X509Source(socket_path=spire.partners.url, timeout_in_seconds=20) as partners:
        theirs = TrustStore.from_spiffe_bundle(partners, "kest.test")
        theirs.add_source(SpiffeBundleSource(partners, "partner.test"))
        assert "no bundle of the trust domain kest.test" in refusal(passport, theirs)
    # An authority vouches for its own domain only.
    partner = source.get_bundle_for_trust_domain(TrustDomain("partner.test"))
    assert partner is not None
    swapped = TrustStore.from_spiffe_bundle(partner.x509_authorities, "kest.test")
    assert "leads to no authority of the trust domain kest.test" in refusal(work(), swapped)


def test_a6_a_chain_proves_its_own_workload_only(
    spire: SimpleNamespace, shop: SPIREProvider, source: X509Source
) -> None:
    """Two real SVIDs of one authority: neither key, nor chain, nor name of the one goes with those of the other."""
    store = TrustStore.from_spiffe_bundle(source, "kest.test")
    brief = SPIREProvider(spire.agent.url, spiffe_id=spire.brief)
    try:
        ((jws,), (other,)) = (work(one).entries for one in (shop, brief))
    finally:
        brief.close()
    head, body, signature = jws.split(".")

    def refused(**changes: Any) -> str:
        encoded = _kestcore.b64url_encode(_kestcore.canonicalize({**header(jws), **changes}))
        return refusal(Passport([f"{encoded}.{body}.{signature}"]), store)

    chains = [header(one)["x5c"] for one in (jws, other)]
    assert "belongs to another SPIFFE ID than the entry's principal" in refused(x5c=chains[1])
    assert refused(kid=spire.brief, x5c=chains[1])
    assert "has a certificate authority as its leaf" in refused(x5c=_bundle(source))
    assert refused(x5c=[*chains[1], *chains[0]])
    assert refusal(Passport([f"{head}.{body}.{other.split('.')[2]}"]), store)


def _bundle(source: X509Source) -> list[str]:
    bundle = source.get_bundle_for_trust_domain(TrustDomain("kest.test"))
    assert bundle is not None
    return [base64.b64encode(one.public_bytes(Encoding.DER)).decode() for one in bundle.x509_authorities]


def test_b6_what_is_recorded_was_asked(shop: SPIREProvider, recording: Any, payload_of: Any) -> None:
    configure(enterprise_policies=["e"], platform_policies=["p1", "p2"], app_policies=["a"])
    context = payload_of(work().entries[0])["policy_context"]
    recorded = [name for tier in TIERS for name in context[f"{tier}_policies"]]
    assert recorded == ["e", "p1", "p2", "a", "work"]
    assert [name for names, _ in recording.asked for name in names] == recorded


def test_rotation_during_ten_thousand_signatures_loses_none(
    spire: SimpleNamespace, source: X509Source, recording: Any
) -> None:
    identity = SPIREProvider(spire.agent.socket, spiffe_id=spire.brief)
    configure(engine=recording, identity=identity)
    store = TrustStore.from_spiffe_bundle(source, "kest.test")
    passports: list[Passport] = []
    keys: set[str] = set()
    end = time.monotonic() + 20 * TTL
    try:
        while len(passports) * FLOW < SIGNATURES or len(keys) < 3:
            assert time.monotonic() < end, "the SVID was not rotated"
            passport = work(times=FLOW)
            passports.append(passport)
            keys |= {header(jws)["x5c"][0] for jws in passport.entries}
    finally:
        identity.close()
    for passport in passports:
        assert len(passport) == FLOW
        assert PassportVerifier.verify(passport, store).principals == {spire.brief}


def local_authority(server: SpireServer, *arguments: str) -> dict[str, Any]:
    """``spire-server localauthority x509``: what it prints."""
    command = [str(components.folder("spire") / "spire-server"), "localauthority", "x509", *arguments]
    done = subprocess.run(
        [*command, "-socketPath", str(server.socket), "-output", "json"],
        capture_output=True, text=True, timeout=20, check=True,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture
def own(
    processes: Processes, tmp_path: Path, built: Callable[[str], Path], recording: Any
) -> Iterator[SimpleNamespace]:
    """A server and an agent that a test may do anything to, and the configured identity of a workload of theirs."""
    built("spire")
    with SpireServer(processes, tmp_path / "s") as server:
        brief = server.register("/brief", ttl=TTL)
        with SpireAgent(processes, tmp_path / "a", server) as agent:
            agent.wait_for_svid(brief)
            identity = SPIREProvider(agent.url)
            configure(engine=recording, identity=identity)
            try:
                yield SimpleNamespace(server=server, agent=agent, brief=brief, identity=identity)
            finally:
                identity.close()


def test_the_store_follows_the_live_bundle_to_a_new_authority(own: SimpleNamespace) -> None:
    yesterday = TrustStore.from_spiffe_bundle(json.loads(own.server.bundle()), "kest.test")
    with X509Source(socket_path=own.agent.url, timeout_in_seconds=20) as source:
        live = TrustStore.from_spiffe_bundle(source, "kest.test")
        before = work()
        assert PassportVerifier.verify(before, live)
        new = local_authority(own.server, "prepare")["prepared_authority"]["authority_id"]
        wait_until(lambda: len(_bundle(source)) == 2, 30)
        local_authority(own.server, "activate", "-authorityID", new)
        wait_until(lambda: _issuer(own.identity) == new, 10 * TTL)
        after = work()
        for passport in (before, after):
            assert PassportVerifier.verify(passport, live).principals == {own.brief}
        assert PassportVerifier.verify(before, yesterday)
        assert "leads to no authority" in refusal(after, yesterday)


def _issuer(identity: SPIREProvider) -> str:
    """The key identifier of the authority that issued the SVID in use."""
    leaf = x509.load_der_x509_certificate(base64.b64decode(identity.x5c[0]))
    found = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    return "" if found is None else found.hex()


def test_an_agent_that_stops_and_starts_again(own: SimpleNamespace) -> None:
    agent, ran = own.agent, []
    step = kest_verified("work")(lambda: ran.append(1))

    def refused() -> str:
        """Why a call did not run; empty if it did."""
        before = len(ran)
        try:
            step()
        except IdentityError as error:
            assert len(ran) == before
            return str(error)
        assert len(ran) == before + 1
        return ""

    assert refused() == ""
    agent.stop()
    wait_until(refused, 5 * TTL)  # until then the SVID that it gave us is valid
    assert "has expired and none has replaced it: is the SPIRE agent running" in refused()
    agent.start()
    wait_until(lambda: not refused(), 60)
    entries = len(get_current_passport())
    assert entries == len(ran)
    with X509Source(socket_path=agent.url, timeout_in_seconds=20) as live:
        store = TrustStore.from_spiffe_bundle(live, "kest.test")
        agent.kill()  # what is known of the bundle goes on counting
        assert len(PassportVerifier.verify(get_current_passport(), store)) == entries


@pytest.mark.parametrize(
    "state", ["no socket", "no agent", "not registered", "another identity", "not a socket", "silent"]
)
def test_no_svid_is_an_error_that_says_what_to_do(
    state: str, spire: SimpleNamespace, processes: Processes, tmp_path: Path, recording: Any, request: Any
) -> None:
    ran: list[int] = []
    wanted, expected = None, ""
    socket = tmp_path / "none.sock"
    if state == "no socket":
        expected = "there is no such socket: start the SPIRE agent, or correct the path (SPIFFE_ENDPOINT_SOCKET)"
    elif state == "not a socket":
        socket.write_text("")
        expected = "no SPIRE agent listens there: start it"
    elif state == "silent":
        listener = socketserver.UnixStreamServer(str(socket), socketserver.BaseRequestHandler)  # nobody ever answers
        request.addfinalizer(listener.server_close)
        expected = "check that the SPIRE agent runs and is healthy"
    elif state == "another identity":
        socket, wanted = spire.agent.socket, "spiffe://kest.test/other"
        expected = "the Workload API offers no SVID for spiffe://kest.test/other"
    else:
        server = SpireServer(processes, tmp_path / "s")
        agent = SpireAgent(processes, tmp_path / "a", server)
        server.start()
        server.register("/other", uid=os.getuid() + 1)
        agent.start()
        socket = agent.socket
        expected = f"no registration entry matches this process (user id {os.getuid()}): see spire-server entry show"
        if state == "no agent":
            agent.kill()
            expected = "no SPIRE agent listens there: start it"
    identity = SPIREProvider(socket, spiffe_id=wanted, timeout=1.0)
    configure(engine=recording, identity=identity)
    with pytest.raises(IdentityError) as caught:
        kest_verified("work")(lambda: ran.append(1))()
    assert expected in str(caught.value)
    assert not ran
    assert recording.asked == []
    identity.close()


def test_the_default_identity_is_spires_or_an_error(
    spire: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_python: Any
) -> None:
    command = "import sys; from kest.cli.main import main; sys.exit(main(['identity', '--explain']))"
    monkeypatch.setenv("SPIFFE_ENDPOINT_SOCKET", spire.agent.url)
    monkeypatch.setenv("KEST_KMS_KEY_ID", "not looked at")
    found = get_default_identity()
    assert isinstance(found, SPIREProvider)
    assert found.get_identity() in (spire.shop, spire.brief)
    found.close()
    said = run_python(command).stdout
    assert f"1. spire  chosen  SPIFFE_ENDPOINT_SOCKET is {spire.agent.url}" in said
    assert "2. aws    no      a source before it is configured" in said
    assert "spiffe://kest.test/" in said
    monkeypatch.setenv("SPIFFE_ENDPOINT_SOCKET", f"unix://{tmp_path}/none.sock")
    with pytest.raises(KestError, match="there is no such socket"):
        get_default_identity()
    down = run_python(command, expect=1)
    assert "1. spire  chosen" in down.stdout
    assert "principal" not in down.stdout
    assert "there is no such socket" in down.stderr
