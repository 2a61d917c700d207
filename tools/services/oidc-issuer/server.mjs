// An OpenID Connect issuer for demos and tests: client credentials, token exchange (RFC 8693) with `act`, and a login
// without a browser that only a test would want. Access tokens are JWTs (RFC 9068); each audience has an algorithm of
// its own, so that all three kinds of key are used.
//
// The configuration is one line of JSON on standard input, so that no secret is in an argument list or environment:
//   {"port": 0,
//    "audiences": {"kest-agent": {"scope": "delegate task:x", "alg": "ES256"}},
//    "clients": [{"id": "portal", "secret": "...", "targets": ["kest-agent"], "logins": ["alice"]},
//                {"id": "kest-agent", "secret": "...", "targets": ["kest-gateway"]}]}
// A client may ask for tokens for its targets only, and let only its logins sign in.
// Once it listens, it prints one line: {"issuer": "http://127.0.0.1:PORT"}. Requests are logged on standard error, without
// their contents. State is in memory, and keys are made anew at every start.
import { generateKeyPairSync } from 'node:crypto';
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';

import { createLocalJWKSet, jwtVerify } from 'jose';
import Provider, { errors } from 'oidc-provider';

const EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange';
const LOGIN = 'urn:kest:params:oauth:grant-type:test-login';
const ACCESS_TOKEN = 'urn:ietf:params:oauth:token-type:access_token';
const JWT = 'urn:ietf:params:oauth:token-type:jwt';
const TTL = 300; // seconds
const MAX_ACTORS = 16;

const config = JSON.parse(await firstLine(process.stdin));
const server = createServer();
await new Promise((resolve, reject) => {
  server.once('error', reject).listen(config.port ?? 0, '127.0.0.1', resolve);
});
const issuer = `http://127.0.0.1:${server.address().port}`;

const keys = [
  signingKey('EdDSA', generateKeyPairSync('ed25519')),
  signingKey('ES256', generateKeyPairSync('ec', { namedCurve: 'P-256' })),
  signingKey('RS256', generateKeyPairSync('rsa', { modulusLength: 2048 })),
];
const published = createLocalJWKSet({ keys: keys.map(publicPart) });
const actors = new WeakMap(); // token being issued → its act claim
const clients = new Map(config.clients.map((entry) => [entry.id, entry]));

const provider = new Provider(issuer, {
  jwks: { keys },
  clients: config.clients.map(({ id, secret, logins }) => ({
    client_id: id,
    client_secret: secret,
    grant_types: ['client_credentials', EXCHANGE, ...(logins ? [LOGIN] : [])],
    redirect_uris: [],
    response_types: [],
    token_endpoint_auth_method: 'client_secret_basic',
  })),
  scopes: [...new Set(Object.values(config.audiences).flatMap(({ scope }) => words(scope)))],
  ttl: { AccessToken: TTL, ClientCredentials: TTL },
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    resourceIndicators: {
      enabled: true,
      // What client credentials may be used for: to come back here with, as an actor_token.
      defaultResource: () => issuer,
      getResourceServerInfo(_ctx, resource) {
        if (resource !== issuer) throw new errors.InvalidTarget();
        return serverInfo(issuer, { scope: '', alg: 'ES256' });
      },
    },
  },
  extraTokenClaims: (_ctx, token) => (actors.has(token) ? { act: actors.get(token) } : undefined),
});
provider.use(logged);
provider.registerGrantType(EXCHANGE, exchange, [
  'subject_token', 'subject_token_type', 'actor_token', 'actor_token_type', 'audience', 'scope', 'requested_token_type',
]);
provider.registerGrantType(LOGIN, login, ['login', 'audience', 'scope']);
server.on('request', provider.callback());
process.stdout.write(`${JSON.stringify({ issuer })}\n`);

// --- grants ---

// RFC 8693, section 2. The subject token must have been meant for the client that brings it, so that a stolen one is worth
// nothing here; an actor is named by an actor token, and never inferred.
async function exchange(ctx) {
  const { client, params } = ctx.oidc;
  const asked = params.requested_token_type;
  if (asked !== undefined && ![ACCESS_TOKEN, JWT].includes(asked)) {
    throw new errors.InvalidRequest('only access tokens are issued here');
  }
  const subject = await verified(params.subject_token, params.subject_token_type, client.clientId, 'subject_token');
  const given = words(subject.scope);
  const wanted = params.scope === undefined ? given : words(params.scope);
  if (!wanted.every((scope) => given.includes(scope))) {
    throw new errors.InvalidScope('the subject token does not have this scope', params.scope);
  }
  let { act } = subject;
  if (params.actor_token !== undefined) {
    const actor = await verified(params.actor_token, params.actor_token_type, issuer, 'actor_token');
    if (actor.sub !== client.clientId) throw refused('the actor_token is not this client\'s own');
    act = act === undefined ? { sub: actor.sub } : { sub: actor.sub, act };
    if (depth(act) > MAX_ACTORS) throw refused('too many actors');
  }
  await issue(ctx, subject.sub, wanted, { act, expires: subject.exp });
}

// What a browser would do: a person signs in and consents. For tests only: anybody who is configured is believed.
async function login(ctx) {
  const { client, params } = ctx.oidc;
  if (!clients.get(client.clientId).logins?.includes(params.login)) throw refused('no such login');
  await issue(ctx, params.login, words(params.scope));
}

async function issue(ctx, user, scopes, { act, expires } = {}) {
  const { client, params } = ctx.oidc;
  const audience = Object.hasOwn(config.audiences, params.audience ?? '') ? config.audiences[params.audience] : undefined;
  if (audience === undefined || !clients.get(client.clientId).targets?.includes(params.audience)) {
    throw new errors.InvalidTarget('this client may not ask for tokens for this audience');
  }
  const offered = words(audience.scope);
  const scope = scopes.filter((name) => offered.includes(name)).join(' ');
  const token = new provider.AccessToken({
    accountId: user,
    client,
    expiresIn: Math.max(1, Math.min(TTL, (expires ?? Infinity) - Math.floor(Date.now() / 1000))),
    gty: params.grant_type,
    resourceServer: new provider.ResourceServer(params.audience, serverInfo(params.audience, audience)),
    scope,
  });
  if (act !== undefined) actors.set(token, act);
  ctx.body = {
    access_token: await token.save(),
    ...(params.grant_type === EXCHANGE ? { issued_token_type: ACCESS_TOKEN } : undefined),
    token_type: token.tokenType,
    expires_in: token.expiration,
    scope: scope || undefined,
  };
}

// --- tokens ---

async function verified(token, type, audience, name) {
  if (!token) throw new errors.InvalidRequest(`${name} is missing`);
  if (![ACCESS_TOKEN, JWT].includes(type)) throw new errors.InvalidRequest(`${name}_type must be an access token's`);
  try {
    const { payload } = await jwtVerify(token, published, { issuer, audience, typ: 'at+jwt', requiredClaims: ['exp', 'sub'] });
    return payload;
  } catch (error) {
    throw refused(error.claim === 'aud' ? `the ${name} was not issued to this client` : `the ${name} is not valid`);
  }
}

function refused(description) {
  return new errors.CustomOIDCProviderError('invalid_grant', description);
}

function serverInfo(audience, { scope, alg }) {
  return { audience, scope, accessTokenFormat: 'jwt', accessTokenTTL: TTL, jwt: { sign: { alg } } };
}

function signingKey(alg, { privateKey }) {
  return { ...privateKey.export({ format: 'jwk' }), alg, use: 'sig', kid: alg.toLowerCase() };
}

function publicPart({ kty, crv, x, y, n, e, alg, use, kid }) {
  return { kty, crv, x, y, n, e, alg, use, kid };
}

function depth(act) {
  return act === undefined ? 0 : 1 + depth(act.act);
}

function words(text) {
  return (text ?? '').split(' ').filter(Boolean);
}

// --- around ---

async function logged(ctx, next) {
  await next();
  const lineage = /(^|[,\s])kest\./.test(ctx.get('baggage')) ? ' with lineage' : '';
  process.stderr.write(`${ctx.method} ${ctx.path} ${ctx.status} ${ctx.body?.error_description ?? ''}${lineage}\n`);
}

async function firstLine(stream) {
  for await (const line of createInterface({ input: stream })) return line;
  throw new Error('the configuration is expected on standard input');
}
