// Uses openid-client as an OAuth client without a secret, or with a key when KEY
// holds a private JWK: code, refresh, a tampered iss, a used code, revocation.
import * as oauth from 'openid-client'
import { env, check, person, done, nameOf } from './house.mjs'

const key = env.KEY ? JSON.parse(env.KEY) : null
const algorithms = {
  ES256: { name: 'ECDSA', namedCurve: 'P-256' },
  RS256: { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256' },
  PS256: { name: 'RSA-PSS', hash: 'SHA-256' },
  EdDSA: { name: 'Ed25519' }
}

async function authentication () {
  if (!key) return oauth.None()
  const { alg, kid, use, ...jwk } = key
  return oauth.PrivateKeyJwt({ key: await crypto.subtle.importKey('jwk', jwk, algorithms[alg], false, ['sign']), kid })
}

const config = await oauth.discovery(new URL(env.ISSUER), env.CLIENT_ID, { redirect_uris: [env.REDIRECT] }, await authentication(), {
  algorithm: 'oauth2',
  execute: env.ISSUER.startsWith('http:') ? [oauth.allowInsecureRequests] : []
})
const server = config.serverMetadata()
check('metadata: S256', server.code_challenge_methods_supported.includes('S256'))
check('metadata: iss is promised', server.authorization_response_iss_parameter_supported === true)
check('metadata: client_id documents', server.client_id_metadata_document_supported === true)

async function ask () {
  const verifier = oauth.randomPKCECodeVerifier()
  const state = oauth.randomState()
  const url = oauth.buildAuthorizationUrl(config, {
    redirect_uri: env.REDIRECT,
    scope: 'issues:read',
    resource: env.RESOURCE,
    code_challenge: await oauth.calculatePKCECodeChallenge(verifier),
    code_challenge_method: 'S256',
    state
  })
  return { back: await person(url), verifier, state }
}

const one = await ask()
const redeem = (back, checks) => oauth.authorizationCodeGrant(config, back, checks, { resource: env.RESOURCE })
const expect = { pkceCodeVerifier: one.verifier, expectedState: one.state }

for (const [text, spoil] of [
  ['a tampered iss is refused', u => u.searchParams.set('iss', 'https://honest.example')],
  ['a missing iss is refused', u => u.searchParams.delete('iss')],
  ['an iss with a slash more is refused', u => u.searchParams.set('iss', env.ISSUER + '/')]
]) {
  const spoiled = new URL(one.back)
  spoil(spoiled)
  try {
    await redeem(spoiled, expect)
    check(text, false)
  } catch (e) {
    check(`${text} (${e.code ?? nameOf(e)})`, /iss|INVALID/i.test(`${e.code} ${e.message} ${e.cause?.message}`))
  }
}

const tokens = await redeem(one.back, expect)
check('a token after all: nothing of that used the code up', tokens.access_token && tokens.token_type === 'bearer')
check('the scope is what was agreed', tokens.scope === 'issues:read', tokens.scope)

const headers = new Headers({ 'content-type': 'application/json', accept: 'application/json, text/event-stream' })
async function speak (message) {
  const r = await oauth.fetchProtectedResource(config, tokens.access_token, new URL(env.RESOURCE), 'POST',
    JSON.stringify({ jsonrpc: '2.0', ...message }), headers)
  check(`the resource takes the token for ${message.method}`, r.ok, `status ${r.status}`)
  if (r.headers.has('mcp-session-id')) headers.set('mcp-session-id', r.headers.get('mcp-session-id'))
  return r.text()
}
await speak({ id: 1, method: 'initialize', params: { protocolVersion: '2025-06-18', capabilities: {}, clientInfo: { name: 'interop', version: '1' } } })
await speak({ method: 'notifications/initialized' })
const said = await speak({ id: 2, method: 'tools/call', params: { name: 'list_issues', arguments: {} } })
check('a tool answers', said.includes('#1'))

const fresh = await oauth.refreshTokenGrant(config, tokens.refresh_token, { resource: env.RESOURCE })
check('refresh: a new token', fresh.access_token && fresh.access_token !== tokens.access_token)
check('refresh: rotated', fresh.refresh_token && fresh.refresh_token !== tokens.refresh_token)

const refused = async (text, code, act) => {
  try {
    await act()
  } catch (e) {
    check(text, e.error === code, e.error ?? String(e))
    return
  }
  check(text, false)
}
await refused('the code is good once', 'invalid_grant', () => redeem(one.back, expect))
await refused('a used code ends what it gave', 'invalid_grant', () => oauth.refreshTokenGrant(config, fresh.refresh_token))

const two = await ask()
await refused('a foreign verifier is refused', 'invalid_grant', () => redeem(two.back, { pkceCodeVerifier: one.verifier, expectedState: two.state }))

const three = await ask()
const last = await redeem(three.back, { pkceCodeVerifier: three.verifier, expectedState: three.state })
await oauth.tokenRevocation(config, last.refresh_token, { token_type_hint: 'refresh_token' })
await refused('a revoked refresh token is dead', 'invalid_grant', () => oauth.refreshTokenGrant(config, last.refresh_token))

if (key) {
  const naked = await oauth.discovery(new URL(env.ISSUER), env.CLIENT_ID, {}, oauth.None(), {
    algorithm: 'oauth2', execute: env.ISSUER.startsWith('http:') ? [oauth.allowInsecureRequests] : []
  })
  const four = await ask()
  await refused('without its key it is nobody', 'invalid_client', () => oauth.authorizationCodeGrant(naked, four.back,
    { pkceCodeVerifier: four.verifier, expectedState: four.state }, { resource: env.RESOURCE }))
  const after = await redeem(four.back, { pkceCodeVerifier: four.verifier, expectedState: four.state })
  check('and the attempt used nothing up', after.access_token)
}
done()
