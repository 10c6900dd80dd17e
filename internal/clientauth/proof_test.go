package clientauth

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/cimd"
	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/directory"
	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/internal/web"
	"github.com/bonafide-id/bonafide/oauth"
)

// with returns members with changes; nil leaves one out.
func with(members, changes map[string]any) map[string]any {
	out := maps.Clone(members)
	maps.Copy(out, changes)
	maps.DeleteFunc(out, func(_ string, v any) bool { return v == nil })
	return out
}

// proof is a good DPoP proof for POST /token with changes to its claims.
func (h *house) proof(t *testing.T, k jose.Private, changes map[string]any) string {
	t.Helper()
	raw, err := k.SignProof(with(map[string]any{
		"jti": oauth.RandomToken(12), "htm": "POST", "htu": issuer + "/token", "iat": h.clock.now().Unix(),
	}, changes))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func requestTo(path string, proofs ...string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, path, nil)
	r.Host = "evil.test" // no check may ask for it
	for _, p := range proofs {
		r.Header.Add("DPoP", p)
	}
	return r
}

// prove asks Proof about a request of a client.
func (h *house) prove(t *testing.T, c *directory.Client, proofs ...string) (string, http.Header, error) {
	t.Helper()
	w := httptest.NewRecorder()
	jkt, err := h.Proof(w, requestTo("/token", proofs...), &Client{Client: c, Method: oauth.MethodNone})
	return jkt, w.Header(), err
}

func wantCode(t *testing.T, err error, code oauth.Code, rule string) {
	t.Helper()
	if e, ok := errors.AsType[*oauth.Error](err); !ok || e.Code != code || e.Rule != rule {
		t.Errorf("error %v, want %s under %s", err, code, rule)
	}
}

func TestProof(t *testing.T) {
	h := newHouse(t)
	key := generate(t, jose.ES256)
	c := h.people.clients[public]
	type m = map[string]any
	t.Run("DPOP-01 a good proof, and none", func(t *testing.T) {
		jkt, header, err := h.prove(t, c, h.proof(t, key, nil))
		if err != nil || jkt != key.Public().Thumbprint() {
			t.Fatal(jkt, err)
		}
		if header.Get("DPoP-Nonce") != "" {
			t.Error("a nonce where none is demanded")
		}
		if jkt, _, err := h.prove(t, c); jkt != "" || err != nil {
			t.Error(jkt, err)
		}
	})
	for name, proofs := range map[string][]string{
		"DPOP-01 two headers": {h.proof(t, key, nil), h.proof(t, key, nil)},
		"DPOP-01 the URL of another server, although the Host header says so": {h.proof(t, key, m{"htu": "https://evil.test/token"})},
		"DPOP-01 another endpoint of ours":                                    {h.proof(t, key, m{"htu": issuer + "/par"})},
		"DPOP-01, attack DP-08: made ten minutes ago":                         {h.proof(t, key, m{"iat": h.clock.now().Unix() - 600})},
		"attack DP-08: made in ten minutes":                                   {h.proof(t, key, m{"iat": h.clock.now().Unix() + 600})},
		"DPOP-01 an assertion is no proof":                                    {h.sign(t, "client-authentication+jwt", h.assertionClaims(keyed))},
		"DPOP-01 nothing":                                                     {""},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := h.prove(t, c, proofs...)
			wantCode(t, err, oauth.InvalidDPoPProof, "DPOP-01")
		})
	}
	t.Run("attack DP-01, attack DP-02: a proof is good once, in whatever spelling", func(t *testing.T) {
		p := h.proof(t, key, m{"jti": "once"})
		if _, _, err := h.prove(t, c, p); err != nil {
			t.Fatal(err)
		}
		_, _, err := h.prove(t, c, p)
		wantCode(t, err, oauth.InvalidDPoPProof, "DPOP-01")
		_, _, err = h.prove(t, c, h.proof(t, key, m{"jti": "once", "htu": issuer + "/token?again"}))
		wantCode(t, err, oauth.InvalidDPoPProof, "DPOP-01")
		h.clock.move(4 * time.Minute)
		_, _, err = h.prove(t, c, h.proof(t, key, m{"jti": "once", "iat": h.clock.now().Unix()}))
		wantCode(t, err, oauth.InvalidDPoPProof, "DPOP-01")
	})
	t.Run("attack DP-01: on the second replica", func(t *testing.T) {
		replica, err := New(Config{Issuer: issuer, Directory: h.people, Spender: h.store, Now: h.clock.now})
		if err != nil {
			t.Fatal(err)
		}
		p := h.proof(t, key, nil)
		if _, _, err := h.prove(t, c, p); err != nil {
			t.Fatal(err)
		}
		_, err = replica.Proof(httptest.NewRecorder(), requestTo("/token", p), &Client{Client: c})
		wantCode(t, err, oauth.InvalidDPoPProof, "DPOP-01")
	})
	t.Run("attack DP-08: nobody uses up the jti of another key", func(t *testing.T) {
		other := generate(t, jose.EdDSA)
		for _, k := range []jose.Private{key, other} {
			if _, _, err := h.prove(t, c, h.proof(t, k, m{"jti": "shared"})); err != nil {
				t.Error(err)
			}
		}
	})
	t.Run("attack DP-08: what is refused, or only looked at, leaves nothing in the store", func(t *testing.T) {
		spent := &counting{Spender: h.store}
		a, err := New(Config{Issuer: issuer, Directory: h.people, Spender: spent, Now: h.clock.now})
		if err != nil {
			t.Fatal(err)
		}
		w := httptest.NewRecorder()
		for _, p := range []string{h.proof(t, key, m{"htm": "GET"}), h.proof(t, key, nil) + "A", "x"} {
			if _, err := a.Proof(w, requestTo("/token", p), &Client{Client: c}); err == nil {
				t.Fatal("accepted")
			}
		}
		bound := *c
		bound.Doc = &cimd.Document{DPoPBound: true}
		p, err := a.Check(w, requestTo("/token", h.proof(t, key, nil)), &Client{Client: &bound})
		if err != nil || spent.n != 0 {
			t.Fatalf("%v, %d spent", err, spent.n)
		}
		if err := p.Spend(t.Context()); err != nil || spent.n != 1 {
			t.Fatalf("%v, %d spent", err, spent.n)
		}
		wantCode(t, p.Spend(t.Context()), oauth.InvalidDPoPProof, "DPOP-01")
		if err := (Possession{}).Spend(t.Context()); err != nil {
			t.Error(err)
		}
	})
	t.Run("DPOP-01 a store that does not answer is not the client's fault", func(t *testing.T) {
		a, err := New(Config{Issuer: issuer, Directory: h.people, Spender: &counting{err: errors.New("no disk")}, Now: h.clock.now})
		if err != nil {
			t.Fatal(err)
		}
		_, err = a.Proof(httptest.NewRecorder(), requestTo("/token", h.proof(t, key, nil)), &Client{Client: c})
		if err == nil || oauth.AsError(err).Code != oauth.ServerError {
			t.Error(err)
		}
	})
	t.Run("DPOP-01 below the path of an issuer", func(t *testing.T) {
		a, err := New(Config{Issuer: "https://host.test/as", Directory: h.people, Spender: h.store, Now: h.clock.now})
		if err != nil {
			t.Fatal(err)
		}
		_, err = a.Proof(httptest.NewRecorder(), requestTo("/as/token", h.proof(t, key, m{"htu": "https://host.test/as/token"})), &Client{Client: c})
		if err != nil {
			t.Error(err)
		}
	})
}

// counting is a store that counts.
type counting struct {
	Spender
	n   int
	err error
}

func (s *counting) SpendID(ctx context.Context, issuer string, id store.Hash, expires, now time.Time) error {
	if s.err != nil {
		return s.err
	}
	s.n++
	return s.Spender.SpendID(ctx, issuer, id, expires, now)
}

func TestDemands(t *testing.T) {
	h := newHouse(t)
	key := generate(t, jose.ES256)
	make := func(change func(*directory.Client)) *directory.Client {
		c := *h.people.clients[public]
		c.Doc = &cimd.Document{}
		change(&c)
		return &c
	}
	for _, r := range []struct {
		row    string
		change func(*directory.Client)
		rule   string
	}{
		{"DPOP-04 the document asks for bound tokens", func(c *directory.Client) { c.Doc.DPoPBound = true }, "DPOP-04"},
		{"DPOP-04 the policy asks for bound tokens", func(c *directory.Client) { c.Decision.RequireDPoP = true }, "DPOP-04"},
		{"POL-09 a policy with FAPI", func(c *directory.Client) { c.Decision.FAPI = true }, "POL-09"},
	} {
		t.Run(r.row, func(t *testing.T) {
			c := make(r.change)
			_, _, err := h.prove(t, c)
			wantCode(t, err, oauth.InvalidDPoPProof, r.rule)
			if _, _, err := h.prove(t, c, h.proof(t, key, nil)); err != nil {
				t.Error(err)
			}
			wantCode(t, h.Demands(&Client{Client: c}, ""), oauth.InvalidDPoPProof, r.rule)
		})
	}
	t.Run("POL-09 a policy decides about algorithms of proofs", func(t *testing.T) {
		c := make(func(c *directory.Client) { c.Decision.SigningAlgs = []string{jose.PS256} })
		_, _, err := h.prove(t, c, h.proof(t, key, nil))
		wantCode(t, err, oauth.InvalidDPoPProof, "POL-09")
	})
}

func TestNonce(t *testing.T) {
	h := newHouse(t)
	key := generate(t, jose.ES256)
	c := h.people.clients[public]
	other := h.Authenticator
	h.cfg.RequireNonce = true
	type m = map[string]any
	first := func(claims m) string {
		t.Helper()
		_, header, err := h.prove(t, c, h.proof(t, key, claims))
		wantCode(t, err, oauth.UseDPoPNonce, "DPOP-03")
		return header.Get("DPoP-Nonce")
	}
	t.Run("DPOP-03 without a nonce the answer has one, and the second attempt succeeds with the next", func(t *testing.T) {
		nonce := first(nil)
		jkt, header, err := h.prove(t, c, h.proof(t, key, m{"nonce": nonce}))
		if err != nil || jkt == "" || header.Get("DPoP-Nonce") == "" {
			t.Fatal(jkt, err, header)
		}
		if jkt, header, err := h.prove(t, c); jkt != "" || err != nil || header.Get("DPoP-Nonce") != "" {
			t.Error("a request without a proof has no use for a nonce", err)
		}
	})
	t.Run("attack DP-07: a nonce that is old, of another server or made up gets a fresh one, once", func(t *testing.T) {
		old := first(nil)
		h.clock.move(6 * time.Minute)
		foreign := jose.RandomNonces(0).At(h.clock.now())
		for _, bad := range []string{old, foreign, "x", other.cfg.Nonces.Challenge(h.clock.now())} {
			nonce := first(m{"nonce": bad})
			if _, _, err := h.prove(t, c, h.proof(t, key, m{"nonce": nonce})); err != nil {
				t.Errorf("after %q: %v", bad, err)
			}
		}
	})
	t.Run("DPOP-03 a nonce outlives its window by one, so that a client is not caught between two", func(t *testing.T) {
		nonce := first(nil)
		h.clock.move(150 * time.Second)
		if _, _, err := h.prove(t, c, h.proof(t, key, m{"nonce": nonce})); err != nil {
			t.Error(err)
		}
	})
}

func TestProofOfToken(t *testing.T) {
	h := newHouse(t)
	key := generate(t, jose.ES256)
	sum := sha256.Sum256([]byte("tok"))
	hash := base64.RawURLEncoding.EncodeToString(sum[:])
	bound := key.Public().Thumbprint()
	ask := func(proofs ...string) error {
		return h.ProofOfToken(httptest.NewRecorder(), requestTo("/token", proofs...), "tok", bound)
	}
	p := h.proof(t, key, map[string]any{"ath": hash})
	t.Run("DPOP-06, attack DP-08: a proof by another key than that of the token is refused, and not remembered", func(t *testing.T) {
		for _, bound = range []string{generate(t, jose.ES256).Public().Thumbprint(), ""} {
			wantCode(t, ask(p), oauth.InvalidToken, "DPOP-06")
		}
		bound = key.Public().Thumbprint()
	})
	if err := ask(p); err != nil {
		t.Fatal(err)
	}
	t.Run("DPOP-01, attack DP-01: a proof of a token is good once, and only for it", func(t *testing.T) {
		wantCode(t, ask(p), oauth.InvalidDPoPProof, "DPOP-01")
		wantCode(t, ask(h.proof(t, key, nil)), oauth.InvalidDPoPProof, "DPOP-01")
		wantCode(t, ask(), oauth.InvalidDPoPProof, "DPOP-06")
	})
}

func TestResolve(t *testing.T) {
	h := newHouse(t)
	const id = "https://stranger.test/c.json"
	stranger := directory.Client{ID: id, Source: store.SourceCIMD, AuthMethods: []string{oauth.MethodPrivateKeyJWT, oauth.MethodNone}, FirstSeen: true}
	h.people.strangers = map[string]*directory.Client{id: &stranger}
	h.publish(id, h.key.Public())
	t.Run("CAUTH-12 a stranger is let in only where the handler says so", func(t *testing.T) {
		h.refused(t, Request{ClientID: id}, "URL-01")
		h.refused(t, withAssertion(h.sign(t, "", h.assertionClaims(id))), "URL-01")
		h.accepted(t, Request{ClientID: id, Resolve: true}, oauth.MethodNone)
		q := withAssertion(h.sign(t, "", h.assertionClaims(id)))
		q.Resolve = true
		if c := h.accepted(t, q, oauth.MethodPrivateKeyJWT); !c.FirstSeen {
			t.Error("the client is no stranger")
		}
	})
	t.Run("CAUTH-12 an assertion that is wrong causes no look-up", func(t *testing.T) {
		h.people.found = 0
		claims := h.assertionClaims(id)
		claims["aud"] = "https://evil.test"
		q := withAssertion(h.sign(t, "", claims))
		q.Resolve = true
		h.refused(t, q, "CAUTH-04")
		if h.people.found != 0 {
			t.Error("the stranger was looked up")
		}
	})
	t.Run("attack CA-12: CAUTH-12, CAUTH-14 a secret, which no stranger has, causes no fetch", func(t *testing.T) {
		for name, q := range map[string]Request{
			"in the header": {Basic: true, BasicUser: id, BasicPass: "guess", Resolve: true},
			"in the body":   {ClientID: id, Secret: "guess", Resolve: true},
		} {
			h.people.fetched = 0
			h.refused(t, q, "CAUTH-14")
			if h.people.fetched != 0 {
				t.Errorf("%s: the document was fetched", name)
			}
		}
		h.accepted(t, Request{Basic: true, BasicUser: basic, BasicPass: h.secret, Resolve: true}, oauth.MethodSecretBasic)
	})
	t.Run("FETCH-19, CAUTH-17 what is wrong with a stranger's document is told as it is", func(t *testing.T) {
		h.people.refusal = web.Refuse(http.StatusServiceUnavailable, oauth.Refuse(oauth.TemporarilyUnavailable, "too many").Under("FETCH-19"))
		_, err := h.Authenticate(t.Context(), Request{ClientID: "https://other.test/c.json", Resolve: true})
		wantCode(t, err, oauth.TemporarilyUnavailable, "FETCH-19")
		h.people.refusal = web.Refuse(http.StatusBadRequest, oauth.Refuse(oauth.InvalidClient, "client_id: is not the URL").Under("DOC-02"))
		_, err = h.Authenticate(t.Context(), Request{ClientID: "https://other.test/c.json", Resolve: true})
		wantCode(t, err, oauth.InvalidClient, "DOC-02")
	})
	t.Run("CAUTH-17 a client whose pinned document is gone is refused and noted like every other", func(t *testing.T) {
		h := newHouse(t)
		var noted []audit.Event
		log, err := audit.New(audit.Config{Sink: h.store, Now: h.clock.now, Observe: func(e audit.Event) { noted = append(noted, e) }})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { log.Close(context.Background()) })
		h.cfg.Audit = log
		h.people.refusal = oauth.Refuse(oauth.InvalidClient, "the client is not known here") // without a cause
		_, err = h.Authenticate(t.Context(), Request{ClientID: "https://other.test/c.json", Resolve: true})
		wantCode(t, err, oauth.InvalidClient, "CAUTH-17")
		if err := log.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if len(noted) != 1 || noted[0].Client != "https://other.test/c.json" || noted[0].Data["check"] != "the client is not known here" {
			t.Errorf("noted %+v", noted)
		}
	})
}
