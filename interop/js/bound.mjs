// Uses openid-client in the ways beyond the plain code grant that MODE names: par
// (RFC 9126), dpop (RFC 9449), device (RFC 8628), alone (client credentials with
// private_key_jwt).
import * as oauth from 'openid-client'
import { env, check, person, done } from './house.mjs'

const mode = new Set(env.MODE.split(' '))
const insecure = env.ISSUER.startsWith('http:') ? [oauth.allowInsecureRequests] : []

async function configuration () {
  let authentication = oauth.None()
  if (env.KEY) {
    const { alg, kid, use, ...jwk } = JSON.parse(env.KEY)
    const key = await crypto.subtle.importKey('jwk', jwk, { name: 'ECDSA', namedCurve: 'P-256' }, false, ['sign'])
    authentication = oauth.PrivateKeyJwt({ key, kid })
  }
  return oauth.discovery(new URL(env.ISSUER), env.CLIENT_ID, {}, authentication, { algorithm: 'oauth2', execute: insecure })
}

const config = await configuration()
const server = config.serverMetadata()
const DPoP = mode.has('dpop') ? oauth.getDPoPHandle(config, await oauth.randomDPoPKeyPair('ES256')) : undefined
const foreign = oauth.getDPoPHandle(config, await oauth.randomDPoPKeyPair('ES256'))
if (DPoP) check('metadata: DPoP algorithms', server.dpop_signing_alg_values_supported.includes('ES256'))

async function refused (text, code, act) {
  try {
    await act()
  } catch (e) {
    check(text, e.error === code, e.error ?? String(e))
    return
  }
  check(text, false)
}

// ask has the person agree and returns what redeem needs.
async function ask () {
  const verifier = oauth.randomPKCECodeVerifier()
  const state = oauth.randomState()
  const parameters = {
    redirect_uri: env.REDIRECT,
    scope: 'issues:read',
    resource: env.RESOURCE,
    code_challenge: await oauth.calculatePKCECodeChallenge(verifier),
    code_challenge_method: 'S256',
    state
  }
  let url
  if (mode.has('par')) {
    check('metadata: an endpoint for pushed requests', server.pushed_authorization_request_endpoint)
    url = await oauth.buildAuthorizationUrlWithPAR(config, parameters, { DPoP })
    const left = [...url.searchParams.keys()].sort().join(' ')
    check('the address holds the client and a reference only', left === 'client_id request_uri', left)
  } else {
    if (DPoP) parameters.dpop_jkt = await DPoP.calculateThumbprint()
    url = oauth.buildAuthorizationUrl(config, parameters)
  }
  return { url, back: await person(url), checks: { pkceCodeVerifier: verifier, expectedState: state } }
}

const redeem = (one, handle) => oauth.authorizationCodeGrant(config, one.back, one.checks, { resource: env.RESOURCE }, { DPoP: handle })

async function code () {
  const one = await ask()
  if (mode.has('par')) {
    const again = await fetch(one.url, { redirect: 'manual' })
    check('a pushed request is good once', again.status === 400, String(again.status))
  }
  if (DPoP) {
    const two = await ask()
    await refused('a code is bound to the key that asked', 'invalid_grant', () => redeem(two, foreign))
    if (!env.KEY) await refused('without a proof there is no token', 'invalid_dpop_proof', () => redeem(two))
  }
  return redeem(one, DPoP)
}

async function device () {
  check('metadata: a device authorization endpoint', server.device_authorization_endpoint)
  const start = () => oauth.initiateDeviceAuthorization(config, { scope: 'issues:read', resource: env.RESOURCE })
  const one = await start()
  check('the device shows a code', /^[A-Z0-9]{4}-[A-Z0-9]{4}$/.test(one.user_code), one.user_code)
  const way = env.PERSON + '?code=' + encodeURIComponent(one.user_code) + '&url=' + encodeURIComponent(one.verification_uri)
  const polled = oauth.pollDeviceAuthorizationGrant(config, one, { resource: env.RESOURCE }, { DPoP, signal: AbortSignal.timeout(60000) })
  const answered = await fetch(way)
  check('the person types the code and agrees', answered.ok, await answered.text())
  const tokens = await polled
  await refused('the device code is good once', 'invalid_grant', () => oauth.genericGrantRequest(config,
    'urn:ietf:params:oauth:grant-type:device_code', { device_code: one.device_code }, { DPoP }))
  return tokens
}

async function alone () {
  const tokens = await oauth.clientCredentialsGrant(config, { scope: 'issues:read', resource: env.RESOURCE }, { DPoP })
  check('who acts for itself gets no refresh token', tokens.refresh_token === undefined)
  await refused('and no more than its rule gives', 'invalid_scope', () =>
    oauth.clientCredentialsGrant(config, { scope: 'issues:write', resource: env.RESOURCE }, { DPoP }))
  return tokens
}

const tokens = await (mode.has('device') ? device() : mode.has('alone') ? alone() : code())
check('the scope is what was agreed', tokens.scope === 'issues:read', tokens.scope)
check('the token type', tokens.token_type === (DPoP ? 'dpop' : 'bearer'), tokens.token_type)

async function call (token, handle) {
  const headers = new Headers({ 'content-type': 'application/json', accept: 'application/json, text/event-stream' })
  const speak = message => oauth.fetchProtectedResource(config, token, new URL(env.RESOURCE), 'POST',
    JSON.stringify({ jsonrpc: '2.0', ...message }), headers, { DPoP: handle })
  const first = await speak({ id: 1, method: 'initialize', params: { protocolVersion: '2025-06-18', capabilities: {}, clientInfo: { name: 'interop', version: '1' } } })
  if (!first.ok) return String(first.status)
  if (first.headers.has('mcp-session-id')) headers.set('mcp-session-id', first.headers.get('mcp-session-id'))
  await speak({ method: 'notifications/initialized' })
  return (await speak({ id: 2, method: 'tools/call', params: { name: 'list_issues', arguments: {} } })).text()
}

check('a tool answers', (await call(tokens.access_token, DPoP)).includes('#1'))
if (DPoP) {
  for (const [text, handle] of [['without a proof the token is nothing', undefined], ['with another key the token is nothing', foreign]]) {
    let got
    try {
      got = await call(tokens.access_token, handle)
    } catch (e) {
      got = String(e.status ?? e.message)
    }
    check(text, got === '401', got)
  }
}

if (!mode.has('alone')) {
  const fresh = await oauth.refreshTokenGrant(config, tokens.refresh_token, { resource: env.RESOURCE }, { DPoP })
  check('refresh: rotated', fresh.refresh_token && fresh.refresh_token !== tokens.refresh_token)
  check('after a refresh a tool answers', (await call(fresh.access_token, DPoP)).includes('#1'))
  if (DPoP && !env.KEY) {
    await refused('a refresh with another key is refused', 'invalid_grant', () =>
      oauth.refreshTokenGrant(config, fresh.refresh_token, {}, { DPoP: foreign }))
  }
  await oauth.tokenRevocation(config, fresh.refresh_token, { token_type_hint: 'refresh_token' })
  await refused('a revoked refresh token is dead', 'invalid_grant', () => oauth.refreshTokenGrant(config, fresh.refresh_token, {}, { DPoP }))
}
done()
