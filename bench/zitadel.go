package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// playZitadel is the role "zitadel": the OpenID provider of zitadel/oidc over the
// storage of its own example, with an ES256 key and access tokens as JWTs.
func playZitadel(args []string) error {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	const client = "bench"
	storage.RegisterClients(storage.NativeClient(client))
	raw, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	s := es256{Storage: storage.NewStorage(storage.NewUserStore("http://localhost:0")), key: signingKey{raw}}
	var at peerUp
	for range n {
		_, token, _, err := s.CreateAccessAndRefreshTokens(context.Background(), &storage.AuthRequest{
			ApplicationID: client, UserID: "id1", Scopes: []string{"offline_access", "issues:read", "issues:write"},
		}, "")
		if err != nil {
			return err
		}
		at.Tokens = append(at.Tokens, token)
	}
	ln, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	provider, err := op.NewProvider(&op.Config{GrantTypeRefreshToken: true, CodeMethodS256: true}, s,
		op.StaticIssuer("http://localhost:8080"), op.WithAllowInsecure(), op.WithLogger(slog.New(slog.NewTextHandler(io.Discard, nil))))
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("/token", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.URL.Path = "/oauth/token" // where it has its token endpoint
		provider.ServeHTTP(w, r)
	}))
	srv := &http.Server{Handler: mux}
	go func() { _ = srv.Serve(ln) }() // ends with the process
	at.Addr, at.Client = ln.Addr().String(), client
	if err := json.NewEncoder(os.Stdout).Encode(at); err != nil {
		return err
	}
	untilDismissed()
	return srv.Close()
}

// es256 is the example's storage with another key, and JWTs for access tokens.
type es256 struct {
	*storage.Storage
	key signingKey
}

func (s es256) SigningKey(context.Context) (op.SigningKey, error) { return s.key, nil }
func (s es256) SignatureAlgorithms(context.Context) ([]jose.SignatureAlgorithm, error) {
	return []jose.SignatureAlgorithm{jose.ES256}, nil
}
func (s es256) KeySet(context.Context) ([]op.Key, error) { return nil, nil }
func (s es256) GetClientByClientID(ctx context.Context, id string) (op.Client, error) {
	c, err := s.Storage.GetClientByClientID(ctx, id)
	return jwtClient{c}, err
}

type jwtClient struct{ op.Client }

func (jwtClient) AccessTokenType() op.AccessTokenType { return op.AccessTokenTypeJWT }

type signingKey struct{ key *ecdsa.PrivateKey }

func (signingKey) SignatureAlgorithm() jose.SignatureAlgorithm { return jose.ES256 }
func (k signingKey) Key() any                                  { return k.key }
func (signingKey) ID() string                                  { return "k1" }
