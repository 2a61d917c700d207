"""A name and a key file that the operator decides: python static.py shop.key

The first run makes the key file, readable by its owner only; `kest keygen` does the same and writes the public key too.
"""

import sys

from shipping import prove, ship

from kest import StaticIdentity, TrustStore, configure

identity = StaticIdentity("spiffe://example.org/shop", key_file=sys.argv[1])
configure(identity=identity)
ship("order 7")
prove(TrustStore.from_jwks({"keys": [identity.public_jwk()]}))  # the JWK set that verifiers are given
