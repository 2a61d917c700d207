"""The pages of the documentation that need servers, run with them."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from kest_services import components
from kest_services.moto import Moto
from kest_services.opa import Opa
from kest_services.processes import Processes
from kest_services.redis import Redis
from kest_services.spire import SpireAgent, SpireServer

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "docs"))
from pages import DOCS, needs, pages, run

Built = Callable[[str], Path]
PAGES = [page for page in pages() if needs(page)]


@contextmanager
def running(
    name: str, processes: Processes, built: Built, folder: Path
) -> Iterator[tuple[dict[str, int], dict[str, str]]]:
    """A server: the ports that pages write for it, and what it sets in their environment."""
    if name == "redis":
        if shutil.which("redis-server") is None:
            pytest.skip("redis-server is not installed")
        server = Redis(processes, folder)
        server.start()
        yield {"6379": server.port}, {}
    elif name == "opa":
        built("opa")
        with Opa(processes, folder) as opa:
            yield {"8181": int(opa.url.rpartition(":")[2])}, {}
    elif name == "spire":
        built("spire")
        with SpireServer(processes, folder / "server", trust_domain="example.org") as spire:
            shop = spire.register("/shop")
            with SpireAgent(processes, folder / "agent", spire) as agent:
                agent.wait_for_svid(shop)
                yield {}, {"SPIFFE_ENDPOINT_SOCKET": agent.url}
    elif name == "aws":
        built("moto")
        with Moto(processes, folder) as moto:
            settings = {"AWS_ENDPOINT_URL": moto.url, "AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any"}
            yield {}, settings | {"AWS_REGION": "eu-central-1", "AWS_DEFAULT_REGION": "eu-central-1"}
    else:
        raise AssertionError(f"nobody starts {name!r}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_runs_as_printed(page: Path, processes: Processes, built: Built, tmp_path: Path) -> None:
    ports: dict[str, int] = {}
    environment: dict[str, str] = {}
    with ExitStack() as stack:
        for name in sorted(needs(page)):
            listens, sets = stack.enter_context(running(name, processes, built, tmp_path / name))
            ports |= listens
            environment |= sets
        run(page, tmp_path, ports, KEST_SERVICES=str(components.cache()), **environment)
