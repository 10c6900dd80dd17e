package clientauth

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/directory"
	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/internal/policy"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/internal/web"
	"github.com/bonafide-id/bonafide/oauth"
)

const (
	native  = "https://native.test/client.json" // attested by its own backend
	another = "https://another.test/client.json"
)

// attestHouse is a house with a client whose backend attests its installations,
// behind an edge, so that headers of answers arrive.
type attestHouse struct {
	*house
	instance jose.Private // key of the installation
	edge     *web.Edge
}

func newAttestHouse(t *testing.T, a Attestation) *attestHouse {
	t.Helper()
	h := &attestHouse{house: newHouse(t), instance: generate(t, jose.ES256)}
	for _, id := range []string{native, another} {
		h.people.add(directory.Client{ID: id, Source: store.SourceCIMD, AuthMethods: []string{oauth.MethodAttestation, oauth.MethodAttestationDPoP}})
		h.publish(id, h.key.Public())
	}
	h.cfg.Attestation = &a
	var err error
	if h.edge, err = web.NewEdge(web.EdgeConfig{Issuer: issuer, Now: h.clock.now}); err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *attestHouse) attestation(t *testing.T, changes map[string]any) string {
	t.Helper()
	now := h.clock.now().Unix()
	raw, err := h.key.Sign(oauth.TypAttestation, with(map[string]any{
		"sub": native, "iat": now - 60, "exp": now + 3600, "cnf": map[string]any{"jwk": h.instance.Public()},
	}, changes))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func (h *attestHouse) pop(t *testing.T, changes map[string]any) string {
	t.Helper()
	raw, err := h.instance.Sign(oauth.TypAttestationPoP, with(map[string]any{
		"aud": issuer, "jti": oauth.RandomToken(12), "iat": h.clock.now().Unix(),
	}, changes))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// attempt is one request with attestation headers.
type attempt struct {
	attestations, pops, proofs []string
	form                       map[string]string
}

// send authenticates an attempt as an endpoint does, and returns the header of the
// answer.
func (h *attestHouse) send(t *testing.T, a attempt) (c *Client, header http.Header, err error) {
	t.Helper()
	r := requestTo("/token", a.proofs...)
	for _, v := range a.attestations {
		r.Header.Add("OAuth-Client-Attestation", v)
	}
	for _, v := range a.pops {
		r.Header.Add("OAuth-Client-Attestation-PoP", v)
	}
	w := httptest.NewRecorder()
	h.edge.API(func(w http.ResponseWriter, r *http.Request) error {
		c, err = h.Authenticate(r.Context(), FromHTTP(r, web.Params{Form: a.form}))
		return err
	}).ServeHTTP(w, r)
	return c, w.Result().Header, err
}

// good are the headers of an attempt that succeeds.
func (h *attestHouse) good(t *testing.T) attempt {
	return attempt{attestations: []string{h.attestation(t, nil)}, pops: []string{h.pop(t, nil)}}
}

func (h *attestHouse) uniform(t *testing.T, err error, rule string) {
	t.Helper()
	e, ok := errors.AsType[*oauth.Error](err)
	if !ok || e.Code != oauth.InvalidClient || e.Rule != "CAUTH-17" || e.Hint != h.hint {
		t.Fatalf("error %v, want the uniform invalid_client", err)
	}
	if inner, ok := e.Err.(*oauth.Error); !ok || inner.Rule != rule {
		t.Errorf("cause %v, want rule %s", e.Err, rule)
	}
}

func TestAttestation(t *testing.T) {
	h := newAttestHouse(t, Attestation{})
	type m = map[string]any
	now := h.clock.now().Unix()
	stranger := generate(t, jose.ES256)
	t.Run("ATT-03, ATT-08 a client attested by its own keys", func(t *testing.T) {
		c, header, err := h.send(t, h.good(t))
		if err != nil {
			t.Fatal(err)
		}
		if c.ID != native || c.Method != oauth.MethodAttestation || c.InstanceJKT != h.instance.Public().Thumbprint() || c.KeyThumbprint != "" {
			t.Errorf("%+v", c)
		}
		if header.Get("OAuth-Client-Attestation-Challenge") != "" {
			t.Error("a challenge where none is demanded")
		}
		a := h.good(t)
		a.form = map[string]string{"client_id": native}
		if _, _, err := h.send(t, a); err != nil {
			t.Error(err)
		}
	})
	attested := func(changes m) []string { return []string{h.attestation(t, changes)} }
	popped := func(changes m) []string { return []string{h.pop(t, changes)} }
	byKey := func(k jose.Private, typ string, claims m) []string {
		raw, err := k.Sign(typ, claims)
		if err != nil {
			t.Fatal(err)
		}
		return []string{raw}
	}
	claims := m{"sub": native, "exp": now + 60, "cnf": m{"jwk": h.instance.Public()}}
	popClaims := m{"aud": issuer, "jti": "x", "iat": now}
	for _, r := range []struct {
		row, rule  string
		attest     []string
		pop        []string
		form       map[string]string
		anotherJWK bool
	}{
		{row: "ATT-01, attack CA-15: two attestations", attest: append(attested(nil), attested(nil)...), rule: "ATT-01"},
		{row: "ATT-01: none", attest: []string{}, rule: "ATT-01"},
		{row: "ATT-01: two in one header", attest: []string{attested(nil)[0] + ", " + attested(nil)[0]}, rule: "ATT-01"},
		{row: "ATT-01: two proofs", pop: append(popped(nil), popped(nil)...), rule: "ATT-01"},
		{row: "ATT-01: no proof", pop: []string{}, rule: "ATT-01"},
		{row: "ATT-01: no token", attest: []string{"a b"}, rule: "ATT-01"},
		{row: "ATT-01: a proof that is no token", pop: []string{"x"}, rule: "ATT-01"},
		{row: "ATT-02: typ of an assertion", attest: byKey(h.key, "client-authentication+jwt", claims), rule: "ATT-02"},
		{row: "ATT-02: no typ", attest: byKey(h.key, "", claims), rule: "ATT-02"},
		{row: "ATT-02: no sub", attest: attested(m{"sub": nil}), rule: "ATT-02"},
		{row: "ATT-02: sub is a list", attest: attested(m{"sub": []string{native}}), rule: "ATT-02"},
		{row: "ATT-02, attack CA-16: client_id is another client", form: map[string]string{"client_id": another}, rule: "ATT-02"},
		{row: "ATT-02: no exp", attest: attested(m{"exp": nil}), rule: "ATT-02"},
		{row: "ATT-02, attack CA-15: expired", attest: attested(m{"exp": now}), rule: "ATT-02"},
		{row: "ATT-02: exp is no time", attest: attested(m{"exp": 1e300}), rule: "ATT-02"},
		{row: "ATT-02: not valid yet", attest: attested(m{"nbf": now + 600}), rule: "ATT-02"},
		{row: "ATT-02: made in the future", attest: attested(m{"iat": now + 600}), rule: "ATT-02"},
		{row: "ATT-02: no cnf", attest: attested(m{"cnf": nil}), rule: "ATT-02"},
		{row: "ATT-02: cnf is a thumbprint", attest: attested(m{"cnf": m{"jkt": "x"}}), rule: "ATT-02"},
		{row: "ATT-02, attack CA-15: cnf holds the private key", attest: attested(m{"cnf": m{"jwk": h.instance}}), rule: "ATT-02"},
		{row: "ATT-03, attack CA-15: an attester whom nobody trusts", attest: byKey(stranger, oauth.TypAttestation, claims), rule: "ATT-03"},
		{row: "ATT-03, attack CA-15: a key of that name and another signature", attest: byKey(renamed(t, stranger, h.key.KID()), oauth.TypAttestation, claims), rule: "ATT-03"},
		{row: "ATT-03: the client is not known", attest: attested(m{"sub": "https://unknown.test/c"}), rule: "URL-01"},
		{row: "CAUTH-01: a client that does not use attestations", attest: attested(m{"sub": keyed}), rule: "CAUTH-01"},
		{row: "ATT-04: typ of the proof", pop: byKey(h.instance, "JWT", popClaims), rule: "ATT-04"},
		{row: "ATT-04, attack CA-16: the proof of another key", pop: byKey(stranger, oauth.TypAttestationPoP, popClaims), rule: "ATT-04"},
		{row: "ATT-04, attack CA-15: aud is another server", pop: popped(m{"aud": "https://evil.test"}), rule: "ATT-04"},
		{row: "ATT-04, attack CA-15: aud holds us and another", pop: popped(m{"aud": []string{issuer, "https://evil.test"}}), rule: "ATT-04"},
		{row: "ATT-04, attack CA-15: aud is the endpoint", pop: popped(m{"aud": issuer + "/token"}), rule: "ATT-04"},
		{row: "ATT-04: no aud", pop: popped(m{"aud": nil}), rule: "ATT-04"},
		{row: "ATT-04: no jti", pop: popped(m{"jti": nil}), rule: "ATT-04"},
		{row: "ATT-04: no iat", pop: popped(m{"iat": nil}), rule: "ATT-05"},
		{row: "ATT-04: challenge is a number", pop: popped(m{"challenge": 1}), rule: "ATT-02"},
		{row: "ATT-05, attack CA-15: the proof is an hour old", pop: popped(m{"iat": now - 3600}), rule: "ATT-05"},
		{row: "ATT-05: the proof is from the future", pop: popped(m{"iat": now + 120}), rule: "ATT-05"},
		{row: "ATT-05: the proof says itself that it has expired", pop: popped(m{"exp": now}), rule: "ATT-05"},
		{row: "ATT-05: the proof is not valid yet", pop: popped(m{"nbf": now + 120}), rule: "ATT-05"},
		{row: "ATT-05: a time that is none", pop: popped(m{"iat": -1}), rule: "ATT-05"},
	} {
		t.Run(r.row, func(t *testing.T) {
			a := attempt{attestations: r.attest, pops: r.pop, form: r.form}
			if a.attestations == nil {
				a.attestations = attested(nil)
			}
			if a.pops == nil {
				a.pops = popped(nil)
			}
			asked := h.people.asked
			_, _, err := h.send(t, a)
			h.uniform(t, err, r.rule)
			if r.rule != "ATT-03" && h.people.asked != asked {
				t.Error("CAUTH-12: keys were looked up before the cheap checks")
			}
		})
	}
	t.Run("ATT-05, attack CA-15: a proof is good once", func(t *testing.T) {
		a := h.good(t)
		if _, _, err := h.send(t, a); err != nil {
			t.Fatal(err)
		}
		_, _, err := h.send(t, a)
		h.uniform(t, err, "ATT-05")
		a.pops = popped(nil) // the attestation itself may be used again
		if _, _, err := h.send(t, a); err != nil {
			t.Error(err)
		}
	})
	t.Run("CAUTH-02 an attestation beside another mechanism", func(t *testing.T) {
		a := h.good(t)
		a.form = map[string]string{"client_id": native, "client_secret": "x"}
		_, _, err := h.send(t, a)
		wantCode(t, err, oauth.InvalidRequest, "CAUTH-02")
	})
	t.Run("ATT-05 an attestation of another client of the same backend names that client", func(t *testing.T) {
		a := attempt{attestations: attested(m{"sub": another}), pops: popped(nil)}
		if c, _, err := h.send(t, a); err != nil || c.ID != another {
			t.Error(c, err)
		}
	})
	t.Run("POL-09 a policy decides about algorithms", func(t *testing.T) {
		h.people.clients[another].Decision.SigningAlgs = []string{jose.PS256}
		_, _, err := h.send(t, attempt{attestations: attested(m{"sub": another}), pops: popped(nil)})
		h.uniform(t, err, "POL-09")
	})
	t.Run("CAUTH-08 keys that cannot be had are the client's trouble", func(t *testing.T) {
		h.people.keysErr = oauth.Refuse(oauth.InvalidClient, "gone")
		defer func() { h.people.keysErr = nil }()
		_, _, err := h.send(t, h.good(t))
		h.uniform(t, err, "CAUTH-08")
	})
	t.Run("ATT-01 where attestations are off, the headers say nothing", func(t *testing.T) {
		h := newHouse(t)
		r := requestTo("/token")
		r.Header.Set("OAuth-Client-Attestation", "x")
		h.accepted(t, FromHTTP(r, web.Params{Form: map[string]string{"client_id": public}}), oauth.MethodNone)
	})
}

func renamed(t *testing.T, k jose.Private, kid string) jose.Private {
	t.Helper()
	raw, err := k.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(raw, &m); err != nil {
		t.Fatal(err)
	}
	m["kid"] = kid
	if raw, err = json.Marshal(m); err != nil {
		t.Fatal(err)
	}
	out, err := jose.ParsePrivate(raw)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestChallenges(t *testing.T) {
	h := newAttestHouse(t, Attestation{RequireChallenge: true})
	type m = map[string]any
	const header = "OAuth-Client-Attestation-Challenge"
	challenge := func() string {
		t.Helper()
		w := httptest.NewRecorder()
		h.edge.API(h.Challenge).ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/challenge", nil))
		var body map[string]string
		if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil || w.Code != 200 {
			t.Fatal(w.Code, err)
		}
		if w.Header().Get("Cache-Control") != "no-store" || w.Header().Get("DPoP-Nonce") == "" {
			t.Error("ATT-06: the answer may be kept, or has no nonce", w.Header())
		}
		return body["attestation_challenge"]
	}
	with := func(claims m) attempt {
		return attempt{attestations: []string{h.attestation(t, nil)}, pops: []string{h.pop(t, claims)}}
	}
	t.Run("ATT-04, ATT-06 a challenge from the endpoint, and the next one from the answer", func(t *testing.T) {
		c, answer, err := h.send(t, with(m{"challenge": challenge()}))
		if err != nil || c.InstanceJKT == "" {
			t.Fatal(err)
		}
		if _, _, err = h.send(t, with(m{"challenge": answer.Get(header)})); err != nil {
			t.Error(err)
		}
	})
	used := challenge()
	if _, _, err := h.send(t, with(m{"challenge": used})); err != nil {
		t.Fatal(err)
	}
	old := challenge()
	h.clock.move(6 * time.Minute)
	for row, claims := range map[string]m{
		"ATT-07, attack CA-16: no challenge":           nil,
		"ATT-07, attack CA-16: used before":            {"challenge": used},
		"ATT-07, attack CA-16: too old":                {"challenge": old},
		"ATT-07, attack CA-16: of another server":      {"challenge": jose.RandomNonces(0).Challenge(h.clock.now())},
		"ATT-07, attack CA-16: of another endpoint":    {"challenge": h.cfg.Nonces.At(h.clock.now())},
		"ATT-07, attack CA-16: made up":                {"challenge": "x"},
		"ATT-07, attack CA-16: used before, by itself": {"challenge": used, "jti": "fresh"},
	} {
		t.Run(row, func(t *testing.T) {
			_, answer, err := h.send(t, with(claims))
			wantCode(t, err, oauth.UseAttestationChallenge, "ATT-07")
			if _, _, err := h.send(t, with(m{"challenge": answer.Get(header)})); err != nil {
				t.Errorf("the second attempt: %v", err)
			}
		})
	}
	t.Run("ATT-07, attack CA-16: a challenge within its time, used in a second proof", func(t *testing.T) {
		twice := challenge()
		if _, _, err := h.send(t, with(m{"challenge": twice})); err != nil {
			t.Fatal(err)
		}
		_, answer, err := h.send(t, with(m{"challenge": twice}))
		wantCode(t, err, oauth.UseAttestationChallenge, "ATT-07")
		if answer.Get(header) == "" || answer.Get(header) == twice {
			t.Error("no fresh challenge")
		}
	})
	t.Run("ATT-07 strangers are not told that a challenge is missing", func(t *testing.T) {
		h.people.keys[native] = jose.Set{}
		_, answer, err := h.send(t, with(nil))
		h.uniform(t, err, "ATT-03")
		if answer.Get(header) != "" {
			t.Error("a challenge for a stranger")
		}
		h.publish(native, h.key.Public())
	})
}

func TestFreshAttestations(t *testing.T) {
	h := newAttestHouse(t, Attestation{MaxAge: time.Hour})
	type m = map[string]any
	now := h.clock.now().Unix()
	for row, r := range map[string]struct {
		claims m
		ok     bool
	}{
		"ATT-07 made an hour ago":                             {m{"iat": now - 3600, "exp": now + 86400}, true},
		"ATT-07 made longer ago":                              {m{"iat": now - 3601, "exp": now + 86400}, false},
		"ATT-07 without iat, it has to expire within an hour": {m{"iat": nil, "exp": now + 3600}, true},
		"ATT-07 without iat, it expires later":                {m{"iat": nil, "exp": now + 3601}, false},
	} {
		t.Run(row, func(t *testing.T) {
			_, _, err := h.send(t, attempt{attestations: []string{h.attestation(t, r.claims)}, pops: []string{h.pop(t, nil)}})
			if r.ok && err != nil {
				t.Fatal(err)
			}
			if !r.ok {
				wantCode(t, err, oauth.UseFreshAttestation, "ATT-07")
			}
		})
	}
}

func TestCombinedMode(t *testing.T) {
	h := newAttestHouse(t, Attestation{RequireChallenge: true})
	type m = map[string]any
	nonce := h.cfg.Nonces.At(h.clock.now())
	with := func(k jose.Private, claims m) attempt {
		return attempt{attestations: []string{h.attestation(t, nil)}, proofs: []string{h.proof(t, k, claims)}}
	}
	t.Run("ATT-10 one DPoP proof is both", func(t *testing.T) {
		a := with(h.instance, m{"nonce": nonce})
		c, _, err := h.send(t, a)
		if err != nil {
			t.Fatal(err)
		}
		if c.Method != oauth.MethodAttestationDPoP || c.InstanceJKT != h.instance.Public().Thumbprint() {
			t.Errorf("%+v", c)
		}
		jkt, err := h.Proof(httptest.NewRecorder(), requestTo("/token", a.proofs...), c)
		if err != nil || jkt != c.InstanceJKT {
			t.Errorf("the same proof binds the token: %q, %v", jkt, err)
		}
		_, _, err = h.send(t, a)
		wantCode(t, err, oauth.InvalidDPoPProof, "DPOP-01")
	})
	t.Run("ATT-10, ATT-07 without our nonce", func(t *testing.T) {
		_, answer, err := h.send(t, with(h.instance, nil))
		wantCode(t, err, oauth.UseDPoPNonce, "DPOP-03")
		if answer.Get("DPoP-Nonce") != nonce {
			t.Error("no nonce in the answer")
		}
	})
	t.Run("ATT-10, attack CA-16: the proof of another key", func(t *testing.T) {
		_, _, err := h.send(t, with(generate(t, jose.ES256), m{"nonce": nonce}))
		h.uniform(t, err, "ATT-10")
	})
	t.Run("ATT-01 two proofs of possession do not become none", func(t *testing.T) {
		a := with(h.instance, m{"nonce": nonce})
		a.pops = []string{h.pop(t, nil), h.pop(t, nil)}
		_, _, err := h.send(t, a)
		h.uniform(t, err, "ATT-01")
	})
	t.Run("ATT-10 a client that has only the other mode", func(t *testing.T) {
		h.people.clients[native].AuthMethods = []string{oauth.MethodAttestation}
		_, _, err := h.send(t, with(h.instance, m{"nonce": nonce}))
		h.uniform(t, err, "CAUTH-01")
	})
	t.Run("ATT-10 with both proofs the DPoP proof may be of another key", func(t *testing.T) {
		a := h.good(t)
		a.pops = []string{h.pop(t, m{"challenge": h.cfg.Nonces.Challenge(h.clock.now())})}
		k := generate(t, jose.ES256)
		a.proofs = []string{h.proof(t, k, m{"nonce": nonce})}
		c, _, err := h.send(t, a)
		if err != nil || c.Method != oauth.MethodAttestation {
			t.Fatal(c, err)
		}
		if jkt, err := h.Proof(httptest.NewRecorder(), requestTo("/token", a.proofs...), c); err != nil || jkt != k.Public().Thumbprint() {
			t.Error(jkt, err)
		}
	})
}

// keys are those of an attester.
type keys struct {
	jose.Set
	err error
}

func (k keys) Find(_ context.Context, kid, alg string) (jose.Key, error) {
	if k.err != nil {
		return jose.Key{}, k.err
	}
	return k.Set.Find(kid, alg)
}

func TestAttesters(t *testing.T) {
	vendor := generate(t, jose.EdDSA)
	h := newAttestHouse(t, Attestation{Attesters: []Attester{
		{Issuer: "https://down.test", Clients: []string{native}, Keys: keys{err: errors.New("down")}},
		{Issuer: "https://vendor.test", Clients: []string{native}, Keys: keys{Set: jose.Set{Keys: []jose.Key{vendor.Public()}}}},
	}})
	attest := func(k jose.Private, iss, sub string) attempt {
		claims := map[string]any{"sub": sub, "exp": h.clock.now().Unix() + 60, "cnf": map[string]any{"jwk": h.instance.Public()}}
		if iss != "" {
			claims["iss"] = iss
		}
		raw, err := k.Sign(oauth.TypAttestation, claims)
		if err != nil {
			t.Fatal(err)
		}
		return attempt{attestations: []string{raw}, pops: []string{h.pop(t, nil)}}
	}
	for _, r := range []struct {
		row string
		a   attempt
		ok  bool
	}{
		{"ATT-03 an attester that the operator trusts", attest(vendor, "https://vendor.test", native), true},
		{"ATT-03 an attester that does not say its name", attest(vendor, "", native), true},
		{"ATT-03 the client's own keys remain good", attest(h.key, "", native), true},
		{"ATT-03 the client's own keys under a name that nobody knows", attest(h.key, native, native), true},
		{"ATT-03, attack CA-15: under the name of an attester", attest(h.key, "https://vendor.test", native), false},
		{"ATT-03, attack CA-15: the attester under another name", attest(vendor, "https://elsewhere.test", native), false},
		{"ATT-03, attack CA-15: the attester for a client that is not his", attest(vendor, "https://vendor.test", another), false},
		{"ATT-03 an attester whose keys cannot be had", attest(vendor, "https://down.test", native), false},
	} {
		t.Run(r.row, func(t *testing.T) {
			_, _, err := h.send(t, r.a)
			if r.ok && err != nil {
				t.Fatal(err)
			}
			if !r.ok {
				h.uniform(t, err, "ATT-03")
			}
		})
	}
	if h.people.clients[native].Decision.Action != policy.Allow {
		t.Error("the client is not allowed")
	}
}
