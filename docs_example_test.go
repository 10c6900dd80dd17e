package bonafide_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/oauth2"

	"github.com/bonafide-id/bonafide/cimd"
	"github.com/bonafide-id/bonafide/cimd/cimdtest"
	"github.com/bonafide-id/bonafide/client"
	"github.com/bonafide-id/bonafide/resource"
)

// The programs of the documents that stand in no example: here the compiler
// reads them, and the tests at the end run what can be run.

func docsGuard(mcpServer http.Handler) error {
	guard, err := resource.New(resource.Config{
		Resource:             "https://mcp.example.com/mcp",
		AuthorizationServers: []string{"https://auth.example.com"},
		Baseline:             []string{"tools:read"},
		Tools:                map[string][]string{"search": nil, "update": {"tools:write"}},
	})
	if err != nil {
		return err
	}
	return http.ListenAndServe("127.0.0.1:8081", guard.Handler(mcpServer))
}

func docsBound(cfg resource.Config) (*resource.Guard, error) {
	cfg.DPoP = resource.DPoP{
		Required:      true,                           // no bearer tokens at all, and the metadata says so
		ContentDigest: true,                           // each proof holds the digest of its body
		RequireNonce:  true,                           // no proofs made beforehand
		NonceKey:      []byte(os.Getenv("NONCE_KEY")), // the same in every process of this server
	}
	return resource.New(cfg)
}

func docsIntrospect(cfg resource.Config) (*resource.Guard, error) {
	cfg.Introspection = &resource.Introspection{
		Secret: os.Getenv("INTROSPECTION_SECRET"), // its SHA-256 is introspection_secret_sha256
		Cache:  10 * time.Second,                  // how long a revoked token may still be accepted
	}
	return resource.New(cfg)
}

func docsStrength(cfg resource.Config) (*resource.Guard, error) {
	cfg.Strength = map[string]resource.Strength{
		"delete_project": {ACR: []string{"urn:example:acr:mfa"}, MaxAge: 5 * time.Minute},
	}
	cfg.HideTools = true // lists hold what the scopes of the token cover
	return resource.New(cfg)
}

func docsResolve(ctx context.Context, clientID string) error {
	resolver, err := cimd.New(cimd.Config{}) // once: public addresses only, 5 s, 5 KiB, no redirects
	if err != nil {
		return err
	}
	defer resolver.Close()

	id, err := cimd.Parse(clientID) // for each request
	if err != nil {
		return err
	}
	doc, err := resolver.Resolve(ctx, id)
	if err != nil {
		return err
	}
	fmt.Println(doc.Name)
	return nil
}

func docsClient() error {
	c, err := client.New(client.Config{ID: "https://app.example.com/client.json"})
	if err != nil {
		return err
	}
	httpClient := c.HTTPClient("https://mcp.example.com/mcp") // signs in when it has to
	resp, err := httpClient.Get("https://mcp.example.com/mcp")
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// These need the network, and are compiled only.
var _ = []any{docsGuard, docsClient, docsBound, docsIntrospect, docsStrength}

// docs/embed.md

// refusalPage says with which status a page tells a person about a refusal.
func refusalPage(err error) int {
	var refusal *cimd.Error
	if !errors.As(err, &refusal) {
		return http.StatusInternalServerError
	}
	switch refusal.Kind {
	case cimd.KindRefused:
		return http.StatusForbidden
	case cimd.KindFetch, cimd.KindStatus, cimd.KindGone, cimd.KindType, cimd.KindTooLarge:
		return http.StatusBadGateway
	case cimd.KindBusy, cimd.KindBackoff:
		return http.StatusServiceUnavailable // with refusal.RetryAfter
	default: // the URL or the document is wrong
		return http.StatusBadRequest
	}
}

func docsConfig(agreed func(clientID string) bool, blocked func(clientID string) bool) (*cimd.Resolver, error) {
	return cimd.New(cimd.Config{
		Profile: cimd.ProfileMCP,
		// Asked before any lookup, and also when the answer is in memory.
		Admit: func(_ context.Context, id cimd.ID) error {
			if blocked(id.String()) {
				return errors.New("blocked by an administrator")
			}
			return nil
		},
		// Keeps documents and keys over a restart.
		Persist: &shelf{agreed: agreed},
		// Told about every fetch and its outcome, never about an answer from memory.
		Observe: func(_ context.Context, e cimd.Event) {
			slog.Info("client document", "event", e.Type, "client", e.ID, "url", e.URL, "kind", e.Kind,
				"rule", e.Rule, "status", e.Status, "took", e.Duration, "error", e.Err)
		},
		Supported: cimd.Supported{AuthMethods: []string{"private_key_jwt", "none"}},
		Limits:    cimd.Limits{LastKnownGood: 30 * time.Minute},
	})
}

// shelf keeps entries for clients that somebody agreed to: strangers cause calls too.
type shelf struct {
	agreed func(clientID string) bool
	items  sync.Map
}

func (s *shelf) Load(_ context.Context, key string) ([]byte, bool, error) {
	v, ok := s.items.Load(key)
	if !ok {
		return nil, false, nil
	}
	return v.([]byte), true, nil
}

func (s *shelf) Save(_ context.Context, key string, clientID cimd.ID, entry []byte) error {
	if s.agreed(clientID.String()) {
		s.items.Store(key, entry)
	}
	return nil
}

func docsKeys(ctx context.Context, resolver *cimd.Resolver, doc *cimd.Document, kid string) error {
	keys, err := resolver.Keys(ctx, doc, kid) // a JWK set as JSON
	if err != nil {
		return err
	}
	png, err := resolver.Logo(ctx, doc)
	if err != nil {
		png = nil // no reason to refuse the client
	}
	fmt.Println(len(keys), len(png))
	return nil
}

func TestDocsResolver(t *testing.T) {
	net := cimdtest.New(t) // hosts with names, addresses and certificates, inside this process
	host := net.Host("app.test")
	id := host.ServeClient("/client.json", map[string]any{"client_name": "App"}, "Cache-Control", "max-age=600")

	resolver, err := cimd.New(net.Config())
	if err != nil {
		t.Fatal(err)
	}
	defer resolver.Close()
	for range 2 {
		if _, err := resolver.Resolve(t.Context(), cimdtest.ID(id)); err != nil {
			t.Fatal(err)
		}
	}
	if n := host.Count("/client.json"); n != 1 {
		t.Errorf("%d fetches", n)
	}
	doc, err := resolver.Resolve(t.Context(), cimdtest.ID(id))
	if err != nil || docsKeys(t.Context(), resolver, doc, "") == nil {
		t.Errorf("a client without keys has keys, or there is no client: %v", err)
	}
	_, err = resolver.Resolve(t.Context(), cimdtest.ID("https://app.test/none.json"))
	if got := refusalPage(err); got != http.StatusBadGateway {
		t.Errorf("the page has status %d", got)
	}
}

func TestDocsConfig(t *testing.T) {
	r, err := docsConfig(func(string) bool { return false }, func(id string) bool { return id == "https://bad.example.com/c.json" })
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	id, err := cimd.Parse("https://bad.example.com/c.json")
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.Resolve(t.Context(), id)
	if got := refusalPage(err); got != http.StatusForbidden {
		t.Errorf("a blocked client: status %d, %v", got, err)
	}
	if err := docsResolve(t.Context(), "http://app.example.com/client.json"); refusalPage(err) != http.StatusBadRequest {
		t.Errorf("no client_id: %v", err)
	}
}

// docs/protect.md

func docsMount(guard *resource.Guard, mcpServer http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle(guard.MetadataPath(), guard.MetadataHandler())
	mux.Handle("/mcp", guard.Protect(mcpServer))
	return mux
}

func docsTracker() (*resource.Guard, error) {
	return resource.New(resource.Config{
		Resource:             "https://mcp.example.com/mcp",
		AuthorizationServers: []string{"https://auth.example.com"},
		Name:                 "Issue tracker",
		// Every scope that is named below must stand here.
		Scopes: []resource.Scope{
			{Name: "issues:read"},
			{Name: "issues:write", Implies: []string{"issues:read"}},
		},
		Baseline: []string{"issues:read"}, // what every request needs
		Tools: map[string][]string{ // what a tool needs besides
			"list_issues":  nil,
			"create_issue": {"issues:write"},
		},
		Observe: func(_ context.Context, d resource.Decision) {
			slog.Info("mcp", "allowed", d.Allowed, "rule", d.Rule, "tool", d.Tool, "client", d.Token.ClientHost(), "error", d.Err)
		},
	})
}

func docsCaller(w http.ResponseWriter, r *http.Request) {
	caller, ok := resource.FromContext(r.Context())
	if !ok || !caller.Allows("issues:write") {
		http.Error(w, "not allowed", http.StatusForbidden)
		return
	}
	fmt.Fprintf(w, "%s by way of %s\n", caller.User(), caller.ClientHost())
}

func TestDocsGuard(t *testing.T) {
	guard, err := docsTracker()
	if err != nil {
		t.Fatal(err)
	}
	if docsMount(guard, http.HandlerFunc(docsCaller)) == nil || guard.MetadataPath() != "/.well-known/oauth-protected-resource/mcp" {
		t.Errorf("the metadata is at %s", guard.MetadataPath())
	}
}

// docs/connect.md

func docsSignIn(dir string) (*client.Client, error) {
	store, err := client.NewFileStore(filepath.Join(dir, "tokens")) // mode 0600, locked between processes
	if err != nil {
		return nil, err
	}
	return client.New(client.Config{
		ID:    "https://app.example.com/client.json",
		Store: store,
		// Asked before each sign-in, with exactly the scopes that will be requested.
		Confirm: func(_ context.Context, ask client.Ask) error {
			if len(ask.New) > 3 {
				return errors.New("that is a lot")
			}
			return nil
		},
		Trace: func(s client.Step) { slog.Debug(s.Text, "kind", s.Kind, "to", s.To, "rule", s.Rule, "error", s.Err) },
	})
}

func docsKey() ([]byte, []byte, error) {
	key, err := client.GenerateKey("ES256")
	if err != nil {
		return nil, nil, err
	}
	private, err := key.MarshalPrivate() // for a file that only its owner can read
	if err != nil {
		return nil, nil, err
	}
	public, err := client.PublicKeys(key) // for the document's jwks_uri
	return private, public, err
}

func docsPublish(key client.Key) ([]byte, error) {
	c, err := client.New(client.Config{
		ID:  "https://app.example.com/client.json",
		Key: key,
	})
	if err != nil {
		return nil, err
	}
	d := c.Document("Example App")
	d.ClientURI = "https://app.example.com/"
	d.JWKS, d.JWKSURI = nil, "https://app.example.com/jwks.json"
	return d.Publish()
}

func docsBoundClient() (*client.Client, error) {
	return client.New(client.Config{
		ID:            "https://app.example.com/client.json",
		DPoP:          client.DPoPIfOffered, // or DPoPAlways: better no token than one that anybody can use
		ContentDigest: true,                 // for MCP servers with the extension for DPoP; harmless elsewhere
	})
}

func docsDevice(show func(text string)) (*client.Client, error) {
	return client.New(client.Config{
		ID: "https://tv.example.com/client.json",
		Device: func(_ context.Context, code client.DeviceCode) error {
			show("Open " + code.VerificationURI + " and type " + code.UserCode)
			return nil // the sign-in goes on until the user has answered
		},
	})
}

func docsAlone(key client.Key) (*client.Client, error) {
	return client.New(client.Config{
		ID:    "https://robot.example.com/client.json",
		Key:   key,
		Alone: true,
	})
}

func docsAttested(backend func(ctx context.Context, clientID string, key []byte) (string, error)) (*client.Client, error) {
	return client.New(client.Config{
		ID: "https://app.example.com/client.json",
		Attest: func(ctx context.Context, a client.Attestation) (string, error) {
			return backend(ctx, a.ClientID, a.Instance) // a JWT whose cnf.jwk is the key
		},
	})
}

func docsRegister(store client.Store) (*client.Client, error) {
	return client.New(client.Config{
		ID:         "https://app.example.com/client.json",
		RegisterAs: "Example App", // the name that people will read there
		Store:      store,         // keeps what each server gave, for that server
	})
}

func docsTokens(ctx context.Context, c *client.Client) (*http.Client, error) {
	source := c.TokenSource(ctx, "https://mcp.example.com/mcp")
	return oauth2.NewClient(ctx, source), nil
}

func docsWeb(ctx context.Context, c *client.Client, query string) (*client.Grant, error) {
	server, err := c.Discover(ctx, "https://mcp.example.com/mcp")
	if err != nil {
		return nil, err
	}
	flow, err := c.Begin(ctx, server, "https://app.example.com/callback", nil)
	if err != nil {
		return nil, err
	}
	// Send the browser to flow.URL and keep flow with the person's session.
	// When the browser comes back to the redirect URI:
	return flow.Finish(ctx, query)
}

func TestDocsClients(t *testing.T) {
	key, err := client.GenerateKey("ES256")
	if err != nil {
		t.Fatal(err)
	}
	for name, build := range map[string]func() (*client.Client, error){
		"bound":      docsBoundClient,
		"device":     func() (*client.Client, error) { return docsDevice(func(string) {}) },
		"alone":      func() (*client.Client, error) { return docsAlone(key) },
		"attested":   func() (*client.Client, error) { return docsAttested(nil) },
		"registered": func() (*client.Client, error) { return docsRegister(client.NewMemoryStore()) },
	} {
		c, err := build()
		if err != nil {
			t.Fatal(name, err)
		}
		if _, err := c.Document("Example App").Publish(); err != nil {
			t.Error(name, err)
		}
	}
}

func TestDocsClient(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	c, err := docsSignIn(dir)
	if err != nil {
		t.Fatal(err)
	}
	if h, err := docsTokens(t.Context(), c); h == nil || err != nil {
		t.Error(err)
	}
	private, public, err := docsKey()
	if err != nil {
		t.Fatal(err)
	}
	key, err := client.ParseKey(private)
	if err != nil {
		t.Fatal(err)
	}
	body, err := docsPublish(key)
	if err != nil {
		t.Fatal(err)
	}
	id, err := cimd.Parse("https://app.example.com/client.json")
	if err != nil {
		t.Fatal(err)
	}
	doc, findings := cimd.Lint(id, body, cimd.ProfileMCP, cimd.Supported{})
	if doc == nil || len(findings) > 0 {
		t.Errorf("our own document has findings: %v", findings)
	}
	if doc != nil {
		if diff := cmp.Diff([]string{"private_key_jwt"}, doc.AuthMethods); diff != "" {
			t.Error(diff)
		}
	}
	if !bytes.Contains(public, []byte(key.ID())) {
		t.Errorf("the published set lacks the key: %s", public)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err = docsWeb(ctx, c, ""); err == nil {
		t.Error("somebody was signed in without a network")
	}
}
