// The peer oidc-provider: refresh tokens that rotate, access tokens as ES256 JWTs
// for one resource, everything in memory. It says where it listens, and ends with
// its standard input. The adapter is a plain Map: the one that comes with it walks
// through all tokens of a grant at each rotation, which would not be a fair fight.
import { generateKeyPairSync } from 'node:crypto';
import { createServer } from 'node:http';
import { Provider } from 'oidc-provider';

const resource = 'https://mcp.bench.example/mcp';
const client = 'bench';
const rows = new Map();

class Memory {
  constructor(model) { this.model = model; }

  key(id) { return `${this.model}:${id}`; }

  async upsert(id, payload) { rows.set(this.key(id), payload); }

  async find(id) { return rows.get(this.key(id)); }

  async findByUid() { return undefined; }

  async findByUserCode() { return undefined; }

  async consume(id) { rows.get(this.key(id)).consumed = Math.floor(Date.now() / 1000); }

  async destroy(id) { rows.delete(this.key(id)); }

  async revokeByGrantId() {}
}

const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const key = { ...privateKey.export({ format: 'jwk' }), use: 'sig', alg: 'ES256', kid: 'k1' };

const provider = new Provider('https://as.bench.example', {
  adapter: Memory,
  jwks: { keys: [key] },
  clients: [{
    client_id: client,
    token_endpoint_auth_method: 'none',
    redirect_uris: ['https://good.test/cb'],
    grant_types: ['authorization_code', 'refresh_token'],
    response_types: ['code'],
    id_token_signed_response_alg: 'ES256',
  }],
  cookies: { keys: ['bench'] },
  findAccount: async (ctx, id) => ({ accountId: id, claims: async () => ({ sub: id }) }),
  rotateRefreshToken: true,
  ttl: { AccessToken: 600, RefreshToken: 1209600, Grant: 7776000 },
  features: {
    devInteractions: { enabled: false },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => resource,
      useGrantedResource: () => true,
      getResourceServerInfo: () => ({
        scope: 'issues:read issues:write', audience: resource, accessTokenFormat: 'jwt', accessTokenTTL: 600, jwt: { sign: { alg: 'ES256' } },
      }),
    },
  },
});
provider.proxy = true;

const tokens = [];
const known = await provider.Client.find(client);
for (let i = 0; i < Number(process.argv[2]); i += 1) {
  const grant = new provider.Grant({ accountId: 'user-1', clientId: client });
  grant.addResourceScope(resource, 'issues:read issues:write');
  const grantId = await grant.save();
  const token = new provider.RefreshToken({
    accountId: 'user-1', client: known, grantId, gty: 'authorization_code', scope: 'issues:read issues:write', resource,
  });
  tokens.push(await token.save());
}

const server = createServer(provider.callback());
server.listen(0, '127.0.0.1', () => {
  const { address, port } = server.address();
  console.log(JSON.stringify({ Addr: `${address}:${port}`, Client: client, Tokens: tokens }));
});
process.stdin.resume().on('end', () => process.exit(0));
