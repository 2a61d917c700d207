"""SPIRE: SVIDs for this process, renewed before they expire; a federated trust domain; restarts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from kest_services.processes import Processes
from kest_services.service import wait_until
from kest_services.spire import SpireAgent, SpireServer
from spiffe import TrustDomain, WorkloadApiClient
from spiffe.workloadapi.x509_context import X509Context

TTL = 6  # seconds; renewed after half of it


@pytest.fixture(scope="module")
def spire(tmp_path_factory: pytest.TempPathFactory, built: Callable[[str], Path]) -> Iterator[SimpleNamespace]:
    """Two servers, the first trusts the second, and an agent of the first with two workloads of this user.

    The agent's folder has a path that is too long for a socket's.
    """
    built("spire")
    folder = tmp_path_factory.mktemp("spire")
    with (
        Processes(folder) as processes,
        SpireServer(processes, folder / "partner", trust_domain="partner.test") as partner,
        SpireServer(processes, folder / "server") as server,
    ):
        server.federate(partner)
        workload = server.register("/workload", federates_with=[partner])
        brief = server.register("/brief", ttl=TTL)
        with SpireAgent(processes, folder / ("agent" * 20), server) as agent:
            agent.wait_for_svid(workload)
            agent.wait_for_svid(brief)
            yield SimpleNamespace(server=server, partner=partner, agent=agent, workload=workload, brief=brief)


def fetch(agent: SpireAgent) -> X509Context:
    """All that the agent has for this process."""
    with WorkloadApiClient(agent.url) as client:
        return client.fetch_x509_context()


def serial(agent: SpireAgent, spiffe_id: str) -> int:
    """The serial number of the SVID that a workload has now."""
    return next(svid.leaf.serial_number for svid in fetch(agent).x509_svids if str(svid.spiffe_id) == spiffe_id)


def test_a_workload_gets_an_svid(spire: SimpleNamespace) -> None:
    context = fetch(spire.agent)
    assert {str(svid.spiffe_id) for svid in context.x509_svids} == {spire.workload, spire.brief}
    assert context.x509_bundle_set.get_bundle_for_trust_domain(TrustDomain("kest.test")) is not None


def test_it_trusts_the_federated_domain(spire: SimpleNamespace) -> None:
    bundle = fetch(spire.agent).x509_bundle_set.get_bundle_for_trust_domain(TrustDomain("partner.test"))
    assert bundle is not None
    assert len(bundle.x509_authorities) == 1


def test_a_short_svid_is_renewed_and_a_long_one_is_not(spire: SimpleNamespace) -> None:
    before = {name: serial(spire.agent, name) for name in (spire.workload, spire.brief)}
    wait_until(lambda: serial(spire.agent, spire.brief) != before[spire.brief], 5 * TTL)
    assert serial(spire.agent, spire.workload) == before[spire.workload]


def test_both_survive_a_restart(spire: SimpleNamespace) -> None:
    socket, port, bundle = spire.agent.socket, spire.server.port, spire.server.bundle()
    spire.agent.stop()
    spire.server.kill()
    spire.server.start()
    spire.agent.start()
    assert (spire.agent.socket, spire.server.port, spire.server.bundle()) == (socket, port, bundle)
    spire.agent.wait_for_svid(spire.workload)
