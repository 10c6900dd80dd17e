package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/bonafide-id/bonafide/cimd"
	"github.com/bonafide-id/bonafide/cimd/cimdtest"
	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/internal/token"
	"github.com/bonafide-id/bonafide/oauth"
)

const (
	issuerHost = "as.bench.example"
	issuer     = "https://" + issuerHost
	protected  = "https://mcp.bench.example/mcp"
	clientHost = "good.test"
	clientID   = "https://" + clientHost + "/client.json"
	keyedID    = "https://keyed.test/client.json"
	challenge  = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM" // RFC 7636, appendix B
)

// chains is how many refresh token families there are.
const chains = 64

// The lives of refresh tokens: short enough and long enough for a soak over most
// of a year.
const (
	idle     = 30 * 24 * time.Hour
	absolute = 3 * 365 * 24 * time.Hour
)

const configuration = `
issuer: %s
listen: %s
store: %q
key_file: %q
par: {life: 5s}
trusted_proxies: [127.0.0.1/32]
cimd: {enabled: true, allow_test_names: true, fetch: %s}
tokens: {refresh_idle: %s, refresh_absolute: %s}
audit: {keep: 2880h}
resources:
  - id: %s
    name: Tracker
    default_scopes: [issues:read]
    scopes:
      - {name: "issues:read", title: read issues, description: It can see the issues that you can see.}
      - {name: "issues:write", title: create issues, description: It can open issues in your name., implies: ["issues:read"]}
policy: {default: allow, rules: [{host: good.test, action: allow}, {host: keyed.test, action: allow}]}
`

// place is where a server is installed and on what.
type place struct {
	dir, listen, fetch string
	store              string // "": a file in dir
	key                string // "": a new file in dir. Otherwise that of another replica, which has seeded the store
	known              int    // so many clients more that somebody agreed to, at known{n}.test
}

// seeds are what is in the database: one refresh token of each grant, of the
// client that everybody agreed to and of one that holds a key, and codes of
// devices that nobody has answered.
type seeds struct {
	Tokens, Keyed, Devices []string
	Key                    *signer
}

// install writes configuration, key file and a database with grants into an
// empty directory, and returns the path of the configuration.
func install(ctx context.Context, p place) (config string, out seeds, err error) {
	config = filepath.Join(p.dir, "bonafide.yaml")
	path, key := cmp.Or(p.store, filepath.Join(p.dir, "bonafide.db")), cmp.Or(p.key, filepath.Join(p.dir, "bonafide.key"))
	if err := os.WriteFile(config, fmt.Appendf(nil, configuration, issuer, p.listen, path, key, p.fetch, idle, absolute, protected), 0o600); err != nil {
		return "", out, err
	}
	if p.key != "" {
		return config, out, nil
	}
	if err := os.WriteFile(key, []byte(oauth.RandomToken(32)), 0o600); err != nil {
		return "", out, err
	}
	s, err := store.Open(ctx, store.Config{Path: path})
	if err != nil {
		return "", out, err
	}
	err = errors.Join(out.fill(ctx, s), agree(ctx, s, p.known))
	return config, out, errors.Join(err, s.Close())
}

// fill makes a person who is signed in and has agreed to two clients many times.
func (out *seeds) fill(ctx context.Context, s *store.Store) error {
	now := time.Now()
	if err := s.AddUser(ctx, store.User{ID: "user-1", Name: "ada", PasswordHash: "x", Created: now}); err != nil {
		return err
	}
	session := store.HashOf(oauth.RandomToken(16))
	if err := s.StartSession(ctx, store.Session{
		Hash: session, UserID: "user-1", AuthTime: now, Created: now, LastSeen: now, Expires: now.Add(24 * time.Hour), ACR: "pwd", AMR: []string{"pwd"},
	}); err != nil {
		return err
	}
	key, err := jose.Generate(jose.ES256)
	if err != nil {
		return err
	}
	out.Key = &signer{key, keyedID}
	open, err := document(clientID, nil)
	if err != nil {
		return err
	}
	held, err := keyed(key)
	if err != nil {
		return err
	}
	keyedDoc, err := document(keyedID, held)
	if err != nil {
		return err
	}
	if out.Tokens, err = seed(ctx, s, session, open, oauth.MethodNone); err != nil {
		return err
	}
	if out.Keyed, err = seed(ctx, s, session, keyedDoc, oauth.MethodPrivateKeyJWT); err != nil {
		return err
	}
	out.Devices, err = devices(ctx, s, open)
	return err
}

// knownID is the client_id of one that somebody agreed to.
func knownID(i int) string { return fmt.Sprintf("https://known%d.test/client.json", i) }

// agree lets the person agree to so many clients once.
func agree(ctx context.Context, s *store.Store, n int) error {
	if n == 0 {
		return nil
	}
	now := time.Now()
	session := store.HashOf(oauth.RandomToken(16))
	if err := s.StartSession(ctx, store.Session{
		Hash: session, UserID: "user-1", AuthTime: now, Created: now, LastSeen: now, Expires: now.Add(24 * time.Hour), ACR: "pwd", AMR: []string{"pwd"},
	}); err != nil {
		return err
	}
	for i := range n {
		doc, err := document(knownID(i), nil)
		if err != nil {
			return err
		}
		if _, err := consented(ctx, s, session, doc, oauth.MethodNone); err != nil {
			return err
		}
	}
	return nil
}

// seed lets the person agree to a client many times.
func seed(ctx context.Context, s *store.Store, session store.Hash, doc *cimd.Document, method string) (tokens []string, err error) {
	for range chains {
		token, err := consented(ctx, s, session, doc, method)
		if err != nil {
			return nil, err
		}
		tokens = append(tokens, token)
	}
	return tokens, nil
}

// consented lets the person agree to a client and returns its refresh token.
func consented(ctx context.Context, s *store.Store, session store.Hash, doc *cimd.Document, method string) (refresh string, err error) {
	now, id := time.Now(), doc.ID.String()
	code, grant := oauth.RandomToken(32), store.NewID(now)
	refresh, kept := token.FirstRefresh(grant, now.Add(idle), now.Add(absolute))
	if err := s.AnswerConsent(ctx, store.Answer{
		Nonce: store.HashOf(code + "nonce"), Session: session, NonceExpires: now.Add(time.Minute),
		Client: &store.Client{
			ID: id, Source: store.SourceCIMD, State: store.StateAllowed, Name: doc.Name,
			RedirectURIs: doc.RedirectURIs, GrantTypes: doc.GrantTypes, AuthMethods: doc.AuthMethods,
		},
		Document: &store.Document{
			ClientID: id, Body: doc.Raw, Digest: doc.Digest, SecurityDigest: doc.SecurityDigest, AuthMethods: doc.AuthMethods, FetchedAt: now,
		},
		Grant: store.Grant{
			ID: grant, UserID: "user-1", ClientID: id, Resource: protected, Scopes: oauth.Scopes{"issues:read", "issues:write"},
			SecurityDigest: doc.SecurityDigest, AuthMethods: doc.AuthMethods, AuthTime: now, ACR: "pwd", AMR: []string{"pwd"},
		},
		Code: store.Code{Hash: store.HashOf(code), RedirectURI: doc.RedirectURIs[0], Challenge: challenge, Expires: now.Add(time.Minute)},
	}, now); err != nil {
		return "", err
	}
	_, err = s.RedeemCode(ctx, store.Redemption{
		Hash: store.HashOf(code), Method: method, Refresh: &kept,
	}, now)
	return refresh, err
}

// devices makes requests of devices that wait for a person, of the client that
// everybody agreed to.
func devices(ctx context.Context, s *store.Store, doc *cimd.Document) (codes []string, err error) {
	now := time.Now()
	for range chains {
		code := oauth.RandomToken(32)
		if err := s.StartDevice(ctx, store.Device{
			Hash: store.HashOf(code), UserCode: store.HashOf(code + "user"), ClientID: doc.ID.String(), Resource: protected, Scopes: oauth.Scopes{"issues:read"},
			AuthMethods: doc.AuthMethods, Method: oauth.MethodNone, SecurityDigest: doc.SecurityDigest,
			Created: now, Expires: now.Add(absolute), NextPoll: now, Interval: 5 * time.Second, State: store.DevicePending,
		}, chains); err != nil {
			return nil, err
		}
		codes = append(codes, code)
	}
	return codes, nil
}

// keyed is what the document of a client says that holds a key.
func keyed(key jose.Private) (map[string]any, error) {
	set, err := jose.MarshalSet(key.Public())
	return map[string]any{"token_endpoint_auth_method": oauth.MethodPrivateKeyJWT, "jwks": json.RawMessage(set)}, err
}

// document returns the document of a client that everybody agreed to.
func document(id string, change map[string]any) (*cimd.Document, error) {
	doc := cimdtest.Document(id, change)
	doc["grant_types"] = []string{oauth.GrantAuthorizationCode, oauth.GrantRefreshToken, oauth.GrantDeviceCode}
	body, err := json.Marshal(doc)
	if err != nil {
		return nil, err
	}
	return cimd.Validate(cimdtest.ID(id), body, cimd.ProfileMCP, cimd.Supported{})
}

// refreshAsk is a refresh; the token goes in last.
func refreshAsk(client string) ask {
	return ask{Method: "POST", Path: "/token", Body: "grant_type=refresh_token&client_id=" + url.QueryEscape(client) + "&refresh_token={token}"}
}

// authorizeAsk is the first request of a client at the authorization endpoint.
func authorizeAsk(path, client, redirect string) ask {
	v := url.Values{
		"response_type": {"code"}, "client_id": {client}, "redirect_uri": {redirect}, "scope": {"issues:read"}, "resource": {protected},
		"state": {"s1"}, "code_challenge": {challenge}, "code_challenge_method": {"S256"},
	}
	return ask{Method: "GET", Path: path + "?" + v.Encode()}
}
