"""What each example in this folder does with its identity: a governed call, and the proof of it, verified."""

from kest import CedarLocalEngine, PassportVerifier, TrustStore, kest_verified
from kest.core.context import get_current_passport


@kest_verified("ship", engine=CedarLocalEngine({"ship": "permit(principal, action, resource);"}))
def ship(order: str) -> None:
    print(order, "is on its way")


def prove(store: TrustStore) -> None:
    """Verify the passport of this flow by what ``store`` believes, as a service that receives it does."""
    verified = PassportVerifier.verify(get_current_passport(), store)
    print("verified:", *verified.principals)
