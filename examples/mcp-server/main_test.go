package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/client"
	"github.com/bonafide-id/bonafide/resource"
)

// issuer is as much of an authorization server as a protected server needs.
type issuer struct {
	*httptest.Server
	key *ecdsa.PrivateKey
	kid string
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	published, err := client.ParseKey(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	if err != nil {
		t.Fatal(err)
	}
	jwks, err := client.PublicKeys(published)
	if err != nil {
		t.Fatal(err)
	}
	i := &issuer{key: key, kid: published.ID()}
	i.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/jwks" {
			_, _ = w.Write(jwks)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]string{"issuer": i.URL, "jwks_uri": i.URL + "/jwks"})
	}))
	t.Cleanup(i.Close)
	return i
}

func (i *issuer) token(t *testing.T, claims map[string]any) string {
	t.Helper()
	header, _ := json.Marshal(map[string]string{"alg": "ES256", "typ": "at+jwt", "kid": i.kid})
	body, _ := json.Marshal(claims)
	b64 := base64.RawURLEncoding.EncodeToString
	signed := b64(header) + "." + b64(body)
	sum := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(rand.Reader, i.key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	sig := make([]byte, 64)
	r.FillBytes(sig[:32])
	s.FillBytes(sig[32:])
	return signed + "." + b64(sig)
}

func TestTracker(t *testing.T) {
	const public = "https://tracker.test/mcp"
	as := newIssuer(t)
	handler, err := newHandler(resource.Config{Resource: public, AuthorizationServers: []string{as.URL}})
	if err != nil {
		t.Fatal(err)
	}
	call := func(user, scope, tool, arguments string) *httptest.ResponseRecorder {
		r := httptest.NewRequest("POST", "/mcp", strings.NewReader(
			`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"`+tool+`","arguments":`+arguments+`}}`))
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Accept", "application/json, text/event-stream")
		if user != "" {
			r.Header.Set("Authorization", "Bearer "+as.token(t, map[string]any{
				"iss": as.URL, "aud": public, "sub": user, "client_id": "https://app.test/c.json", "scope": scope,
				"exp": time.Now().Add(time.Minute).Unix(),
			}))
		}
		rec := httptest.NewRecorder()
		handler.ServeHTTP(rec, r)
		return rec
	}
	t.Run("RS-05 nobody gets in without a token", func(t *testing.T) {
		if rec := call("", "", "list_issues", "{}"); rec.Code != 401 || !strings.Contains(rec.Header().Get("WWW-Authenticate"), `scope="issues:read"`) {
			t.Error(rec.Code, rec.Header())
		}
	})
	t.Run("RS-07, attack RS-10: reading is not writing", func(t *testing.T) {
		if rec := call("john", "issues:read", "create_issue", `{"title":"x"}`); rec.Code != 403 || !strings.Contains(rec.Header().Get("WWW-Authenticate"), `scope="issues:read issues:write"`) {
			t.Error(rec.Code, rec.Header())
		}
	})
	t.Run("RS-09, RS-21 who may write may read, and only their own", func(t *testing.T) {
		if rec := call("john", "issues:write", "create_issue", `{"title":"Buy milk"}`); rec.Code != 200 || !strings.Contains(rec.Body.String(), "Buy milk") {
			t.Fatal(rec.Code, rec.Body)
		}
		if rec := call("john", "issues:write", "list_issues", "{}"); !strings.Contains(rec.Body.String(), "Buy milk") {
			t.Error(rec.Body)
		}
		if rec := call("mary", "issues:read", "list_issues", "{}"); rec.Code != 200 || strings.Contains(rec.Body.String(), "Buy milk") {
			t.Error(rec.Code, rec.Body)
		}
	})
	t.Run("RS-21 arguments are the server's to judge", func(t *testing.T) {
		if rec := call("john", "issues:write", "create_issue", `{"title":""}`); !strings.Contains(rec.Body.String(), `"isError":true`) {
			t.Error(rec.Body)
		}
	})
	t.Run("RS-02 the metadata is there", func(t *testing.T) {
		rec := httptest.NewRecorder()
		handler.ServeHTTP(rec, httptest.NewRequest("GET", "/.well-known/oauth-protected-resource/mcp", nil))
		if raw, _ := io.ReadAll(rec.Body); rec.Code != 200 || !strings.Contains(string(raw), `"resource":"`+public+`"`) {
			t.Error(rec.Code, string(raw))
		}
	})
	t.Run("RS-27 a configuration that cannot work is refused", func(t *testing.T) {
		if err := serve(t.Context(), "127.0.0.1:0", resource.Config{}); err == nil {
			t.Error("served")
		}
	})
}
