#!/bin/sh
# Registers workloads, NAME=UID=SECONDS each, and leaves in $OUT what an agent needs to attest itself: bundle.pem and token.
set -eu

server() { command=$1; shift; "$SPIRE_SERVER" "$command" "$@" -socketPath "$SPIRE_SOCKET"; }

until server healthcheck >/dev/null 2>&1; do sleep 1; done
for entry in "$@"; do
    name=${entry%%=*}
    rest=${entry#*=}
    id=spiffe://$TRUST_DOMAIN/$name
    # Again after a restart: the server still knows it.
    if ! server entry show -spiffeID "$id" | grep -q "unix:uid:${rest%=*}\$"; then
        server entry create -parentID "spiffe://$TRUST_DOMAIN/agent" -spiffeID "$id" \
            -selector "unix:uid:${rest%=*}" -x509SVIDTTL "${rest#*=}"
    fi
done
server bundle show >"$OUT/bundle.pem"
server token generate -spiffeID "spiffe://$TRUST_DOMAIN/agent" | sed 's/^Token: *//;q' >"$OUT/token"
