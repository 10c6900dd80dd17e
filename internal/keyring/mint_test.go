package keyring

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/google/go-cmp/cmp"
)

// open checks a token against the JWKS, as a stranger would, and returns its
// header and claims.
func open(t *testing.T, r *Ring, token string) (jose.Header, map[string]any) {
	t.Helper()
	m, err := jose.Parse(token, maxToken)
	if err != nil {
		t.Fatal(err)
	}
	set, err := jose.ParseSet(r.JWKS(), jose.SetLimits{})
	if err != nil {
		t.Fatal(err)
	}
	k, err := set.Find(m.Header.KID, m.Header.Alg)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Verify(k); err != nil {
		t.Fatal(err)
	}
	var claims map[string]any
	if err := json.Unmarshal(m.Claims, &claims); err != nil {
		t.Fatal(err)
	}
	return m.Header, claims
}

func TestMintAccess(t *testing.T) {
	for _, alg := range jose.Algorithms {
		t.Run("TOK-08, TOK-09 an access token signed with "+alg, func(t *testing.T) {
			c := newClock()
			cfg := config(openStore(t, c), c)
			cfg.Alg = alg
			r := mustNew(t, cfg)
			header, got := open(t, r, mint(t, r))
			now := float64(c.now().Unix())
			want := map[string]any{
				"iss": issuer, "sub": "user-1", "aud": "https://mcp.test/mcp", "client_id": "https://good.test/client.json",
				"iat": now, "exp": now + 600, "jti": "jti-1", "scope": "read write",
				"auth_time": now - 60, "acr": "pwd", "amr": []any{"pwd"}, "bonafide.id/grant": "grant-1",
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("claims (-want +got):\n%s", diff)
			}
			if header.Typ != "at+jwt" || header.Alg != alg || header.KID == "" {
				t.Errorf("header %+v", header)
			}
			back, err := r.VerifyAccess(mint(t, r), c.now())
			if diff := cmp.Diff(access(r), back); diff != "" || err != nil {
				t.Errorf("read back: %v (-want +got):\n%s", err, diff)
			}
		})
	}

	c := newClock()
	r := mustNew(t, config(openStore(t, c), c))
	t.Run("TOK-08 a token without a person says nothing about a sign-in", func(t *testing.T) {
		a := access(r)
		a.Subject, a.ClientOnly = a.ClientID, true
		token, err := r.MintAccess(a)
		if err != nil {
			t.Fatal(err)
		}
		_, claims := open(t, r, token)
		for _, name := range []string{"auth_time", "acr", "amr"} {
			if _, has := claims[name]; has {
				t.Errorf("%s is there", name)
			}
		}
		if back, err := r.VerifyAccess(token, c.now()); err != nil || !back.ClientOnly || !back.AuthTime.IsZero() {
			t.Errorf("read back: %+v, %v", back, err)
		}
	})
	for name, spoil := range map[string]func(*AccessToken){
		"no subject":           func(a *AccessToken) { a.Subject = "" },
		"no client":            func(a *AccessToken) { a.ClientID = "" },
		"no audience":          func(a *AccessToken) { a.Audience = "" },
		"no jti":               func(a *AccessToken) { a.JTI = "" },
		"a person as a client": func(a *AccessToken) { a.Subject = a.ClientID },
		"a client as a person": func(a *AccessToken) { a.ClientOnly = true },
		"no life":              func(a *AccessToken) { a.Expires = a.Issued },
		"longer than its key":  func(a *AccessToken) { a.Expires = a.Issued.Add(31 * time.Minute) },
	} {
		t.Run("TOK-08 not minted: "+name, func(t *testing.T) {
			a := access(r)
			spoil(&a)
			if _, err := r.MintAccess(a); err == nil {
				t.Fatal("minted")
			}
		})
	}
}

func TestMintID(t *testing.T) {
	c := newClock()
	good := func(r *Ring) IDToken {
		return IDToken{
			Subject: "user-1", ClientID: "https://good.test/client.json", Nonce: "n-1", Issued: c.now(), Expires: c.now().Add(10 * time.Minute),
			AuthTime: c.now(), ACR: "pwd", AMR: []string{"pwd"}, AccessToken: "abc.def.ghi",
		}
	}
	r := mustNew(t, config(openStore(t, c), c))
	t.Run("OIDC-01 an ID token is for the client and carries nonce, auth_time and at_hash", func(t *testing.T) {
		token, err := r.MintID(good(r))
		if err != nil {
			t.Fatal(err)
		}
		header, got := open(t, r, token)
		sum := sha256.Sum256([]byte("abc.def.ghi"))
		now := float64(c.now().Unix())
		want := map[string]any{
			"iss": issuer, "sub": "user-1", "aud": "https://good.test/client.json", "iat": now, "exp": now + 600, "auth_time": now,
			"nonce": "n-1", "acr": "pwd", "amr": []any{"pwd"}, "at_hash": base64.RawURLEncoding.EncodeToString(sum[:16]),
		}
		if diff := cmp.Diff(want, got); diff != "" || header.Typ != "JWT" {
			t.Errorf("typ %q, claims (-want +got):\n%s", header.Typ, diff)
		}
	})
	t.Run("OIDC-01 at_hash is half a SHA-512 with EdDSA", func(t *testing.T) {
		// SHA-512 of "abc" is the first example of FIPS 180.
		if got := halfHash(jose.EdDSA, "abc"); got != "3a81oZNherrMQXNJriBBMRLm-k6JqX6iCp7u5ktV05o" {
			t.Fatal(got)
		}
	})
	t.Run("OIDC-01 not minted without a subject, a client or a life", func(t *testing.T) {
		for _, spoil := range []func(*IDToken){
			func(i *IDToken) { i.Subject = "" }, func(i *IDToken) { i.ClientID = "" }, func(i *IDToken) { i.Expires = i.Issued },
		} {
			id := good(r)
			spoil(&id)
			if _, err := r.MintID(id); err == nil {
				t.Error("minted")
			}
		}
	})
	t.Run("OIDC-04 an ID token is not an access token", func(t *testing.T) {
		token, err := r.MintID(good(r))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.VerifyAccess(token, c.now()); !errors.Is(err, ErrNotOurs) {
			t.Fatalf("error %v", err)
		}
	})
}

func TestVerifyAccess(t *testing.T) {
	c := newClock()
	s := openStore(t, c)
	r := mustNew(t, config(s, c))
	sign := func(t *testing.T, typ string, spoil func(map[string]any)) string {
		t.Helper()
		claims := map[string]any{
			"iss": issuer, "sub": "u", "aud": "https://mcp.test/mcp", "client_id": "c", "jti": "j",
			"iat": c.now().Unix(), "exp": c.now().Add(time.Minute).Unix(), "scope": "read",
		}
		spoil(claims)
		token, err := r.signer().private.Sign(typ, claims)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	if _, err := r.VerifyAccess(sign(t, "at+jwt", func(map[string]any) {}), c.now()); err != nil {
		t.Fatalf("the good one: %v", err)
	}
	rows := map[string]string{
		"garbage":            "not.a.token",
		"empty":              "",
		"too long":           string(make([]byte, maxToken+1)),
		"type JWT":           sign(t, "JWT", func(map[string]any) {}),
		"another issuer":     sign(t, "at+jwt", func(m map[string]any) { m["iss"] = issuer + "/" }),
		"expired":            sign(t, "at+jwt", func(m map[string]any) { m["exp"] = c.now().Unix() }),
		"no exp":             sign(t, "at+jwt", func(m map[string]any) { delete(m, "exp") }),
		"no jti":             sign(t, "at+jwt", func(m map[string]any) { delete(m, "jti") }),
		"a list of audience": sign(t, "at+jwt", func(m map[string]any) { m["aud"] = []string{"https://mcp.test/mcp"} }),
		"a broken scope":     sign(t, "at+jwt", func(m map[string]any) { m["scope"] = `a"b` }),
	}
	token := mint(t, r)
	i := len(token) - 10
	rows["a changed signature"] = token[:i] + string(token[i]^1) + token[i+1:]
	// Another server with the same issuer but its own keys.
	rows["somebody else's key"] = mint(t, mustNew(t, config(openStore(t, c), c)))
	for name, token := range rows {
		t.Run("OIDC-04 refused: "+name, func(t *testing.T) {
			if _, err := r.VerifyAccess(token, c.now()); !errors.Is(err, ErrNotOurs) {
				t.Fatalf("error %v", err)
			}
		})
	}
}

func BenchmarkMintAccess(b *testing.B) {
	c := newClock()
	p, err := jose.Generate(jose.ES256)
	if err != nil {
		b.Fatal(err)
	}
	r := &Ring{cfg: Config{Issuer: issuer, TokenLife: time.Hour}, now: c.now}
	r.state.Store(&state{keys: []*key{{kid: p.KID(), alg: jose.ES256, private: p, public: p.Public()}}})
	a := access(r)
	for b.Loop() {
		if _, err := r.MintAccess(a); err != nil {
			b.Fatal(err)
		}
	}
}
