package main

import (
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
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/oauth"
)

const (
	issuerHost = "as.bench.example"
	issuer     = "https://" + issuerHost
	protected  = "https://mcp.bench.example/mcp"
	clientHost = "good.test"
	clientID   = "https://" + clientHost + "/client.json"
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
policy: {default: allow}
`

// install writes configuration, key file and a database with grants into an
// empty directory, and returns the path of the configuration and one refresh
// token of each grant.
func install(ctx context.Context, dir, listen, fetch string) (config string, tokens []string, err error) {
	config = filepath.Join(dir, "bonafide.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, configuration, issuer, listen, fetch, idle, absolute, protected), 0o600); err != nil {
		return "", nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "bonafide.key"), []byte(oauth.RandomToken(32)), 0o600); err != nil {
		return "", nil, err
	}
	s, err := store.Open(ctx, store.Config{Path: filepath.Join(dir, "bonafide.db")})
	if err != nil {
		return "", nil, err
	}
	tokens, err = seed(ctx, s)
	return config, tokens, errors.Join(err, s.Close())
}

// seed makes a person who is signed in and has agreed to one client many times.
func seed(ctx context.Context, s *store.Store) (tokens []string, err error) {
	now := time.Now()
	doc, err := document()
	if err != nil {
		return nil, err
	}
	if err := s.AddUser(ctx, store.User{ID: "user-1", Name: "ada", PasswordHash: "x", Created: now}); err != nil {
		return nil, err
	}
	session := store.HashOf(oauth.RandomToken(16))
	if err := s.StartSession(ctx, store.Session{
		Hash: session, UserID: "user-1", AuthTime: now, Created: now, LastSeen: now, Expires: now.Add(24 * time.Hour), ACR: "pwd", AMR: []string{"pwd"},
	}); err != nil {
		return nil, err
	}
	for range chains {
		code, token := oauth.RandomToken(32), oauth.RandomToken(32)
		if err := s.AnswerConsent(ctx, store.Answer{
			Nonce: store.HashOf(code + "nonce"), Session: session, NonceExpires: now.Add(time.Minute),
			Client: &store.Client{
				ID: clientID, Source: store.SourceCIMD, State: store.StateAllowed, Name: doc.Name,
				RedirectURIs: doc.RedirectURIs, GrantTypes: doc.GrantTypes, AuthMethods: doc.AuthMethods,
			},
			Document: &store.Document{
				ClientID: clientID, Body: doc.Raw, Digest: doc.Digest, SecurityDigest: doc.SecurityDigest, AuthMethods: doc.AuthMethods, FetchedAt: now,
			},
			Grant: store.Grant{
				ID: store.NewID(now), UserID: "user-1", ClientID: clientID, Resource: protected, Scopes: oauth.Scopes{"issues:read", "issues:write"},
				SecurityDigest: doc.SecurityDigest, AuthMethods: doc.AuthMethods, AuthTime: now, ACR: "pwd", AMR: []string{"pwd"},
			},
			Code: store.Code{Hash: store.HashOf(code), RedirectURI: doc.RedirectURIs[0], Challenge: challenge, Expires: now.Add(time.Minute)},
		}, now); err != nil {
			return nil, err
		}
		if _, err := s.RedeemCode(ctx, store.Redemption{
			Hash: store.HashOf(code), Method: oauth.MethodNone,
			Refresh: &store.NewRefresh{Hash: store.HashOf(token), Expires: now.Add(idle), Absolute: now.Add(absolute)},
		}, now); err != nil {
			return nil, err
		}
		tokens = append(tokens, token)
	}
	return tokens, nil
}

// document returns the document of the client that everybody agreed to.
func document() (*cimd.Document, error) {
	body, err := json.Marshal(cimdtest.Document(clientID, nil))
	if err != nil {
		return nil, err
	}
	return cimd.Validate(cimdtest.ID(clientID), body, cimd.ProfileMCP, cimd.Supported{})
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
