"""Keycloak: installed once by tools/services/keycloak/install, started with realms from files, in memory."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from kest_services.processes import ProcessError, Processes
from kest_services.service import Service, http
from kest_services.toolchains import MissingToolError

__all__ = ["INSTALL", "UNAVAILABLE", "Keycloak", "install"]

INSTALL = Path(__file__).resolve().parents[1] / "keycloak/install"
UNAVAILABLE = 69
"""What INSTALL answers where Keycloak cannot be had."""


def install() -> Path:
    """Where Keycloak is, fetched and built if it was not.

    Raises:
        MissingToolError: it cannot be had here.
        ProcessError: it is not what is pinned, or could not be built.
    """
    done = subprocess.run([str(INSTALL)], capture_output=True, text=True, timeout=900, check=False)
    if done.returncode == UNAVAILABLE:
        raise MissingToolError(f"Keycloak cannot be installed here: {' '.join(done.stderr.split()[-40:])}")
    if done.returncode:
        raise ProcessError(f"the installation of Keycloak failed: {done.stderr[-2000:]}")
    return Path(done.stdout.strip())


class Keycloak(Service):
    """Keycloak. Realms are as in their files at every start: nothing that changes while it runs is kept.

    Args:
        realms: a folder of realm files, ``<realm>-realm.json`` each.
    """

    name = "keycloak"
    patience = 300.0  # 10 on an idle machine
    ports = 2
    forks = True  # kc.sh runs java beside itself

    def __init__(self, processes: Processes, folder: Path, *, realms: Path) -> None:
        super().__init__(processes, folder)
        self.admin = ("kest-admin", secrets.token_urlsafe(24))
        """Client id and secret of an administrator of the realm ``master``."""
        self._home = _home(install(), folder / "home", realms)

    @property
    def url(self) -> str:
        """Its public address; a realm's issuer identifier is ``<url>/realms/<realm>``."""
        return f"http://127.0.0.1:{self.port_numbers[0]}"

    def command(self) -> Sequence[str]:
        shutil.rmtree(self._home / "data/tmp", ignore_errors=True)
        port, management = self.port_numbers
        return [
            str(self._home / "bin/kc.sh"), "start", "--optimized", "--import-realm",
            "--http-enabled=true", "--http-host=127.0.0.1", f"--http-port={port}",
            "--http-management-host=127.0.0.1", f"--http-management-port={management}",
            "--hostname-strict=false",
        ]  # fmt: skip

    def environment(self) -> Mapping[str, str | None]:
        # On its own terms: nothing of the caller's Keycloak or Java options.
        theirs = [name for name in os.environ if name.startswith(("KC_", "KEYCLOAK_", "JAVA_OPTS"))]
        return {
            **dict.fromkeys(theirs),
            "KC_BOOTSTRAP_ADMIN_CLIENT_ID": self.admin[0],
            "KC_BOOTSTRAP_ADMIN_CLIENT_SECRET": self.admin[1],
        }

    def ready(self) -> bool:
        return http("GET", f"http://127.0.0.1:{self.port_numbers[1]}/health/ready")[0] == 200


def _home(installation: Path, home: Path, realms: Path) -> Path:
    """A home of its own around what is shared: Keycloak reads realms from its home and writes into it."""
    shutil.rmtree(home, ignore_errors=True)
    (home / "bin").mkdir(parents=True)
    shutil.copy(installation / "bin/kc.sh", home / "bin")
    for part in ("conf", "lib", "providers", "themes"):
        (home / part).symlink_to(installation / part)
    shutil.copytree(realms, home / "data/import")
    return home
