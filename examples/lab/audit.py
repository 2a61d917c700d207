"""Verifies a passport on standard input against the live trust bundle, as a workload of the lab that may see it.

out/lab/workloads/auditor/bin/auditor examples/lab/audit.py <passport.json     (with SPIFFE_ENDPOINT_SOCKET)
"""

from __future__ import annotations

import json
import sys

from service import believe
from spiffe import X509Source

from kest import Passport, PassportVerifier, VerificationError

passport = Passport.deserialize(sys.stdin.read())
with X509Source(timeout_in_seconds=20) as live:
    try:
        verified = PassportVerifier.verify(passport, believe(live))
    except VerificationError as error:
        sys.exit(str(error))
print(json.dumps({"trust": verified.trust_score, "principals": sorted(verified.principals)}))
