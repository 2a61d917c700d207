"""An X.509-SVID from SPIRE. Needs kest[spiffe], and the agent's socket in SPIFFE_ENDPOINT_SOCKET."""

from shipping import prove, ship
from spiffe import X509Source

from kest import SPIREProvider, TrustStore, configure

identity = SPIREProvider()
configure(identity=identity)
ship("order 7")
with X509Source(timeout_in_seconds=10) as source:  # the live bundle: rotated authorities are followed
    domain = identity.get_identity().split("/")[2]
    prove(TrustStore.from_spiffe_bundle(source, domain))
identity.close()
