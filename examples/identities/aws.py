"""The role of this workload, with an asymmetric KMS key. Needs kest[aws], and KEST_KMS_KEY_ID with the key's id or alias.

Make the key once, and allow the role kms:GetPublicKey and kms:Sign on it:
    aws kms create-key --key-spec ECC_NIST_P256 --key-usage SIGN_VERIFY
"""

import asyncio

from shipping import prove, ship

from kest import AWSWorkloadIdentity, CedarLocalEngine, TrustStore, configure, kest_verified

identity = AWSWorkloadIdentity()
configure(identity=identity, engine=CedarLocalEngine({"ship": "permit(principal, action, resource);"}))
ship("order 7")


@kest_verified("ship")
async def pack(parcel: int) -> None:
    print("parcel", parcel, "is packed")


async def pack_all() -> None:
    await asyncio.gather(*map(pack, range(3)))  # KMS is asked by threads: the three requests are under way together


asyncio.run(pack_all())
prove(TrustStore.from_jwks({"keys": [identity.public_jwk()]}))
identity.close()
