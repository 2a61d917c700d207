"""A key that is as old as this process: for notebooks and tests."""

from shipping import prove, ship

from kest import LocalEd25519Provider, TrustStore, configure

identity = LocalEd25519Provider("spiffe://example.org/notebook")  # logs one warning: nobody else has its public key
configure(identity=identity)
ship("order 7")
prove(TrustStore({identity.get_identity(): identity.public_jwk()}))
