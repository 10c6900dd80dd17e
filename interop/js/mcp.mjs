// Signs in with one of the TypeScript SDKs and uses the MCP server: the SDK's own
// discovery, registration by client_id URL, PKCE, refresh and step-up. argv[2] is
// the package: @modelcontextprotocol/sdk (1.x) or @modelcontextprotocol/client (2.x).
import { env, check, person, done, nameOf } from './house.mjs'

const old = process.argv[2] === '@modelcontextprotocol/sdk'
const sdk = old
  ? { ...await import('@modelcontextprotocol/sdk/client/index.js'), ...await import('@modelcontextprotocol/sdk/client/streamableHttp.js') }
  : await import('@modelcontextprotocol/client')

// Provider is what an application has to write: a place to keep things.
class Provider {
  clientMetadataUrl = env.CLIENT_ID
  asked = []
  get redirectUrl () { return env.REDIRECT }
  get clientMetadata () { return { client_name: 'Interop', redirect_uris: [env.REDIRECT] } }
  state () { return this.sent = crypto.randomUUID() }
  clientInformation () { return this.client }
  saveClientInformation (c) { this.client = c }
  tokens () { return this.kept }
  saveTokens (t) { this.kept = t }
  saveCodeVerifier (v) { this.verifier = v }
  codeVerifier () { return this.verifier }
  saveDiscoveryState (s) { this.discovery = s }
  discoveryState () { return this.discovery }
  redirectToAuthorization (url) { this.asked.push(url) }
}

const provider = new Provider()
const open = () => new sdk.StreamableHTTPClientTransport(new URL(env.RESOURCE), { authProvider: provider })

// authorize lets the person answer what the SDK asked for last.
async function authorize (transport) {
  const back = await person(provider.asked.at(-1))
  check('the answer has our state', back.searchParams.get('state') === provider.sent)
  check('the answer has iss', back.searchParams.get('iss') === env.ISSUER)
  if (old) await transport.finishAuth(back.searchParams.get('code'))
  else await transport.finishAuth(back.searchParams)
}

async function connect () {
  const transport = open()
  const client = new sdk.Client({ name: 'interop', version: '1.0.0' })
  try {
    await client.connect(transport)
    return { client, transport }
  } catch (e) {
    if (nameOf(e) !== 'UnauthorizedError' || provider.asked.length !== 1) throw e
  }
  await authorize(transport)
  const again = open()
  const second = new sdk.Client({ name: 'interop', version: '1.0.0' })
  await second.connect(again)
  return { client: second, transport: again }
}

const { client, transport } = await connect()
check('the client_id is the URL', provider.client.client_id === env.CLIENT_ID)
check('it asked once', provider.asked.length === 1)

const said = async (name, args) => (await client.callTool({ name, arguments: args })).content[0].text
check('list_issues is called', (await said('list_issues', {})).includes('#1'))

check('there is a refresh token', typeof provider.kept.refresh_token === 'string')
const first = provider.kept.refresh_token
provider.kept = { ...provider.kept, access_token: 'worn-out' }
check('after a refresh list_issues is called', (await said('list_issues', {})).includes('#1'))
check('the refresh token was rotated', provider.kept.refresh_token !== first)
check('nobody was asked for it', provider.asked.length === 1)

// The 1.x SDK meets insufficient_scope with a refresh, which cannot widen a
// grant: an application has to drop the refresh token for a step-up.
if (old) provider.kept = { ...provider.kept, refresh_token: undefined }
try {
  await said('create_issue', { title: 'from TypeScript' })
  check('create_issue was let through without being asked for', false)
} catch (e) {
  check('create_issue asks the person: ' + nameOf(e), provider.asked.length === 2)
}
check('the step-up asks for what is missing', provider.asked[1].searchParams.get('scope').includes('issues:write'))
await authorize(transport)
check('then create_issue is called', (await said('create_issue', { title: 'from TypeScript' })).includes('from TypeScript'))
await client.close()
done()
