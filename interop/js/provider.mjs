// An authorization server that others wrote, oidc-provider, for our own client:
// documents for client_ids, PAR, DPoP with nonces, devices, client credentials and
// attestations, with its own sign-in and consent pages. argv[2] is the port. It
// says when it listens and ends with its standard input.
import { createPublicKey, randomBytes } from 'node:crypto'
import { createServer } from 'node:http'
import { Provider } from 'oidc-provider'

const port = Number(process.argv[2])
const issuer = `http://localhost:${port}`
const resource = process.env.RESOURCE

const provider = new Provider(issuer, {
  clientDefaults: { id_token_signed_response_alg: 'ES256' },
  clientAuthMethods: ['none', 'private_key_jwt', 'attest_jwt_client_auth'],
  cookies: { keys: ['interop'] },
  enabledJWA: {
    attestSigningAlgValues: ['ES256'], clientAuthSigningAlgValues: ['ES256', 'RS256', 'PS256', 'Ed25519'], dPoPSigningAlgValues: ['ES256']
  },
  // It refuses to fetch from loopback, as it should: here all documents stand there.
  fetch: (url, { dispatcher, ...options }) => globalThis.fetch(url, options),
  findAccount: async (ctx, id) => ({ accountId: id, claims: async () => ({ sub: id }) }),
  issueRefreshToken: async (ctx, client) => client.grantTypeAllowed('refresh_token'),
  rotateRefreshToken: true,
  scopes: ['openid', 'offline_access'],
  features: {
    attestClientAuth: {
      enabled: true,
      ack: 'draft-12',
      challengeSecret: randomBytes(32),
      // the attester is the client's own backend, with the keys that the document publishes
      getAttestationSignaturePublicKey: async (ctx, header, payload, client) => {
        const { keys } = await (await fetch(client.jwksUri)).json()
        return createPublicKey({ format: 'jwk', key: keys.find(k => k.kid === header.kid) ?? keys[0] })
      }
    },
    clientCredentials: { enabled: true },
    clientIdMetadataDocument: { enabled: true, ack: 'draft-02' },
    deviceFlow: { enabled: true },
    devInteractions: { enabled: true },
    dPoP: { enabled: true, nonceSecret: randomBytes(32), requireNonce: () => true },
    pushedAuthorizationRequests: { enabled: true, requirePushedAuthorizationRequests: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => resource,
      useGrantedResource: () => true,
      getResourceServerInfo: () => ({
        scope: 'issues:read issues:write', audience: resource, accessTokenFormat: 'jwt', accessTokenTTL: 600, jwt: { sign: { alg: 'ES256' } }
      })
    },
    revocation: { enabled: true }
  },
  jwks: { keys: [JSON.parse(process.env.KEY)] }
})
for (const event of ['server_error', 'authorization.error', 'grant.error', 'pushed_authorization_request.error', 'device_authorization.error']) {
  provider.on(event, (ctx, err) => console.error(event, err.error ?? '', err.error_description ?? '', err.error_detail ?? '', err.cause ?? err.stack))
}
createServer(provider.callback()).listen(port, '127.0.0.1', () => console.log('ready'))
process.stdin.resume().on('end', () => process.exit(0))
