package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/bonafide-id/bonafide/client"
)

// attested is a client whose installations carry an attestation of its backend.
type attested struct {
	*keyed
	instance *key
}

func (t *trial) attested() *attested {
	k := t.keyed(fresh("attested"), m{"token_endpoint_auth_method": "attest_jwt_client_auth"}, "ES256")
	return &attested{k, newKey("ES256")}
}

func (a *attested) attestation(head, change m) string {
	now := a.s.now().Unix()
	c := m{"sub": a.id, "iss": a.id, "iat": now, "exp": now + 600, "cnf": m{"jwk": a.instance.jwk(m{"alg": nil, "use": nil, "kid": nil})}}
	for n, v := range change {
		if c[n] = v; v == nil {
			delete(c, n)
		}
	}
	h := m{"typ": "oauth-client-attestation+jwt"}
	for n, v := range head {
		h[n] = v
	}
	return a.keys[0].sign(h, c)
}

func (a *attested) challenge() string {
	return a.s.post("/challenge", nil).str("attestation_challenge")
}

func (a *attested) pop(by *key, change m) string {
	now := a.s.now().Unix()
	c := m{"iss": a.id, "aud": issuer, "jti": random(16), "iat": now}
	if _, ok := change["challenge"]; !ok {
		c["challenge"] = a.challenge()
	}
	for n, v := range change {
		if c[n] = v; v == nil {
			delete(c, n)
		}
	}
	return by.sign(m{"typ": "oauth-client-attestation-pop+jwt", "kid": nil}, c)
}

func (a *attested) send(attestations []string, pops []string) reply {
	return a.s.post("/revoke", values("token", "unknown", "client_id", a.id), func(r *http.Request) {
		for _, v := range attestations {
			r.Header.Add("OAuth-Client-Attestation", v)
		}
		for _, v := range pops {
			r.Header.Add("OAuth-Client-Attestation-PoP", v)
		}
	})
}

// begin proves that the good attestation works, before the bad ones are sent.
func (a *attested) begin(t *trial) {
	code := t.john.codeFor(azOf(a.id))
	b := a.s.post("/token", codeForm(code, "client_id", a.id, "redirect_uri", a.host.url("/cb")), withHeader("OAuth-Client-Attestation", a.attestation(nil, nil)), withHeader("OAuth-Client-Attestation-PoP", a.pop(a.instance, nil)))
	if !t.check(b.ok(), "a good attestation: %s", b) {
		t.fatal("the honest way does not work")
	}
}

func (a *attested) bad(t *trial, what string, b reply, codes ...string) {
	ok := (b.status == 400 || b.status == 401) && b.str("access_token") == ""
	if len(codes) > 0 {
		ok = ok && strings.Contains(strings.Join(codes, " "), b.str("error"))
	} else {
		ok = ok && b.str("error") == "invalid_client"
	}
	t.check(ok, "%s: %s", what, b)
}

var groupCA = group{
	name: "CA",
	prepare: func(e *env) {
		t := &trial{env: e}
		k := t.keyed("assert.test", nil, "ES256", "RS256")
		if a := k.redeem(k.codeOf(e.john), k.assert(nil)); !a.ok() {
			panic(stop{"no tokens for a client with keys: " + a.String()})
		}
		e.vars["k"] = k
	},
	rows: []row{
		{"CA-01", func(t *trial) {
			k := t.vars["k"].(*keyed)
			one := k.assert(nil)
			t.check(k.auth(one).ok(), "the first time")
			a := k.auth(one)
			t.check(a.is(401, "invalid_client"), "the second time: %s", a)
			t.s.later(50 * time.Second)
			t.check(k.auth(one).is(401, "invalid_client"), "a little later")
			one = k.assert(nil)
			t.check(k.auth(one).ok(), "before a restart")
			t.s.restart()
			t.check(k.auth(one).is(401, "invalid_client"), "after a restart")
			if twin := t.twin(); twin != nil {
				one = k.assert(nil)
				a, b := k.auth(one), twin.post("/revoke", values(with(one, "token", "unknown")...))
				t.check(a.ok() && b.is(401, "invalid_client"), "at the second replica: %s, %s", a, b)
			}
			t.onceOnly("an assertion", 401, "invalid_client", func() (string, string, []edit) {
				return "/revoke", values(with(k.assert(nil), "token", "unknown")...).Encode(), nil
			}, reply.ok)
		}},
		{"CA-02", func(t *trial) {
			k := t.vars["k"].(*keyed)
			for _, aud := range []any{issuer + "/token", []string{issuer, "https://evil.test"}, "https://evil.test", issuer + "/", nil, []string{}, "", []string{issuer, issuer + "/token"}, 1, m{"a": issuer}, "https://AS.test", []any{issuer, 1}} {
				t.refusedAssertion(k, fmt.Sprintf("aud %v", aud), k.assert(m{"aud": aud}))
			}
			a := t.s.post("/revoke", values(with(k.assert(m{"aud": "https://evil.test"}), "token", "x")...), func(r *http.Request) { r.Host = "evil.test"; r.Header.Set("X-Forwarded-Host", "evil.test") })
			t.check(a.is(401, "invalid_client"), "the Host header makes an audience: %s", a)
			t.check(k.auth(k.assert(m{"aud": []string{issuer}})).ok(), "a list of one")
		}},
		{"CA-04", func(t *trial) {
			k := t.vars["k"].(*keyed)
			for _, c := range []m{{"sub": "https://evil.test/c.json"}, {"iss": "https://evil.test/c.json"}, {"iss": goodID, "sub": goodID}, {"iss": nil}, {"sub": nil}, {"iss": 1}, {"sub": ""}} {
				t.refusedAssertion(k, compact(c), k.assert(c))
			}
			a := t.s.post("/revoke", values(with(k.assert(nil), "token", "x", "client_id", goodID)...))
			t.check(a.is(401, "invalid_client"), "client_id of another client: %s", a)
			t.check(t.s.post("/revoke", values(with(k.assert(nil), "token", "x", "client_id", k.id)...)).ok(), "its own client_id")
		}},
		{"CA-05", func(t *trial) {
			k := t.vars["k"].(*keyed)
			now := t.s.now().Unix()
			for _, c := range []m{{"exp": nil}, {"exp": now + 10*365*86400}, {"exp": now - 1}, {"exp": now - 61}, {"nbf": now + 600}, {"iat": now + 600}, {"exp": "soon"}, {"exp": fmt.Sprint(now + 60)}, {"exp": 1e300}, {"exp": -5}, {"exp": 0}, {"iat": -1e300}, {"exp": true}} {
				t.refusedAssertion(k, compact(c), k.assert(c))
			}
		}},
		{"CA-07", func(t *trial) {
			k := t.vars["k"].(*keyed)
			for _, jti := range []any{nil, "", strings.Repeat("j", 257), strings.Repeat("j", 64<<10), 1, []string{"a"}} {
				t.refusedAssertion(k, fmt.Sprintf("jti %.20v", jti), k.assert(m{"jti": jti}))
			}
			ca07(t, k)
		}},
		{"CA-08", func(t *trial) {
			k, other := t.vars["k"].(*keyed), t.keyed(fresh("twin"), nil, "ES256")
			t.check(other.redeem(other.codeOf(t.john), other.assert(m{"jti": "shared"})).ok(), "the first client")
			t.check(k.auth(k.assert(m{"jti": "shared"})).ok(), "the second client with the same jti")
			t.check(k.auth(k.assert(m{"jti": "shared"})).is(401, "invalid_client"), "the second client again")
		}},
		{"CA-09", func(t *trial) {
			k := t.vars["k"].(*keyed)
			for what, s := range map[string]string{"1 MiB": k.assert(nil) + strings.Repeat("A", 1<<20), "20,000 bytes": k.assert(nil) + strings.Repeat("A", 20_000), "dots": strings.Repeat(".", 1_000_000), "15,000 dots": strings.Repeat(".", 15_000)} {
				a := k.auth(s)
				early := len(s) > 500_000 && a.err != nil // the server answers and closes before all of it is sent
				t.check(early || a.status == 413 || a.status == 400 || a.status == 401, "%s: %s", what, a)
				t.check(a.took < 2*time.Second, "%s: it took %v", what, a.took)
			}
		}},
		{"CA-10", func(t *trial) {
			k := t.vars["k"].(*keyed)
			for _, typ := range []string{"at+jwt", "dpop+jwt", "application/at+jwt", "secevent+jwt", "oauth-client-attestation+jwt", "logout+jwt", "oauth-authz-req+jwt"} {
				t.refusedAssertion(k, typ, k.keys[0].sign(m{"typ": typ}, k.claims(nil)))
			}
			a := t.john.grant("prompt", "consent", "scope", "mcp:read openid")
			t.refusedAssertion(k, "an access token", a.str("access_token"))
			if id := a.str("id_token"); id != "" {
				t.refusedAssertion(k, "an ID token", id)
			}
			for _, typ := range []any{nil, "JWT", "client-authentication+jwt"} {
				t.check(k.auth(k.keys[0].sign(m{"typ": typ}, k.claims(nil))).ok(), "typ %v", typ)
			}
		}},
		{"CA-11", func(t *trial) {
			k := t.vars["k"].(*keyed)
			good := k.keys[0]
			for what, head := range map[string]m{"crit b64": {"crit": []string{"b64"}, "b64": false}, "unknown crit": {"crit": []string{"x"}, "x": 1}, "empty crit": {"crit": []string{}}, "b64 alone": {"b64": false}, "zip": {"zip": "DEF"}} {
				if what == "zip" {
					continue // zip means nothing in a JWS
				}
				t.refusedAssertion(k, what, good.sign(head, k.claims(nil)))
			}
			for what, head := range map[string]string{
				"alg twice": `{"alg":"ES256","alg":"none","kid":"` + good.kid + `"}`, "alg twice, the good one last": `{"alg":"none","alg":"ES256","kid":"` + good.kid + `"}`, "kid twice": `{"alg":"ES256","kid":"x","kid":"` + good.kid + `"}`, "alg in upper case": `{"ALG":"ES256","kid":"` + good.kid + `"}`,
			} {
				t.refusedAssertion(k, what, good.signRaw(b64([]byte(head)), b64JSON(k.claims(nil))))
			}
			s := k.assert(nil)
			parts := strings.Split(s, ".")
			for what, s := range map[string]string{
				"five parts": s + ".a.b", "JSON": compact(m{"protected": parts[0], "payload": parts[1], "signature": parts[2]}), "JSON, general": compact(m{"payload": parts[1], "signatures": []any{m{"protected": parts[0], "signature": parts[2]}}}),
				"nested": good.sign(m{"cty": "JWT"}, m{"jwt": s}), "an encrypted one": b64JSON(m{"alg": "RSA-OAEP", "enc": "A256GCM"}) + ".a.b.c.d", "no JWT": "hello", "padding": s + "==", "a line break": s[:40] + "\n" + s[40:], "standard base64": strings.NewReplacer("-", "+", "_", "/").Replace(s) + "+",
				"claims twice": good.signRaw(parts[0], b64([]byte(strings.Replace(compact(k.claims(nil)), "{", `{"aud":"https://evil.test",`, 1)))),
			} {
				t.refusedAssertion(k, what, s)
			}
		}},
		{"CA-12", func(t *trial) {
			k := t.vars["k"].(*keyed)
			code := k.codeOf(t.john)
			f := codeForm(code, "client_id", k.id, "redirect_uri", k.host.url("/cb"))
			a := t.s.post("/token", f)
			t.check(a.is(401, "invalid_client"), "no assertion: %s", a)
			a = t.s.post("/token", change(codeForm(code, "client_id", k.id, "redirect_uri", k.host.url("/cb")), p("client_secret", "x")))
			t.check(a.is(401, "invalid_client"), "a secret: %s", a)
			a = t.s.post("/token", f, basic(k.id, "x"))
			t.check(a.status == 400 || a.status == 401, "Basic: %s", a)
			a = t.s.post("/token", change(f, with(k.assert(nil))), basic(k.id, "x"))
			t.check((a.status == 400 || a.status == 401) && !a.ok(), "an assertion and Basic: %s", a)
			a = k.redeem(code, k.assert(nil))
			t.check(a.ok(), "and then the honest way: %s", a)
		}},
		{"CA-14", func(t *trial) { audienceInjection(t) }},
		{"CA-15", func(t *trial) {
			a := t.attested()
			a.begin(t)
			now := t.s.now().Unix()
			pop := a.pop(a.instance, nil)
			t.check(a.send(p(a.attestation(nil, nil)), p(pop)).ok(), "a good one")
			a.bad(t, "the proof again", a.send(p(a.attestation(nil, nil)), p(pop)), "invalid_client", "use_attestation_challenge", "use_fresh_attestation", "invalid_client_attestation")
			one := func(change m) reply { return a.send(p(a.attestation(nil, nil)), p(a.pop(a.instance, change))) }
			a.bad(t, "an hour old", one(m{"iat": now - 3600}))
			a.bad(t, "another audience", one(m{"aud": "https://evil.test"}))
			a.bad(t, "two audiences", one(m{"aud": []string{issuer, "https://evil.test"}}))
			a.bad(t, "no jti", one(m{"jti": nil}))
			two := func(change m) reply { return a.send(p(a.attestation(nil, change)), p(a.pop(a.instance, nil))) }
			a.bad(t, "an expired attestation", two(m{"exp": now - 1}))
			a.bad(t, "no exp", two(m{"exp": nil}))
			a.bad(t, "cnf holds a private key", two(m{"cnf": m{"jwk": a.instance.private()}}))
			a.bad(t, "no cnf", two(m{"cnf": nil}))
			evil := *a
			k := *a.keyed
			k.keys = []*key{newKey("ES256")}
			evil.keyed = &k
			a.bad(t, "an attester nobody trusts", a.send(p(evil.attestation(nil, nil)), p(a.pop(a.instance, nil))))
			k.keys[0].kid = a.keys[0].kid
			a.bad(t, "and with the kid of the trusted one", a.send(p(evil.attestation(nil, nil)), p(a.pop(a.instance, nil))))
			a.bad(t, "two attestations", a.send(p(a.attestation(nil, nil), a.attestation(nil, nil)), p(a.pop(a.instance, nil))), "invalid_client", "invalid_request")
			a.bad(t, "two proofs", a.send(p(a.attestation(nil, nil)), p(a.pop(a.instance, nil), a.pop(a.instance, nil))), "invalid_client", "invalid_request")
			a.bad(t, "no proof", a.send(p(a.attestation(nil, nil)), nil), "invalid_client", "invalid_request")
			a.bad(t, "no attestation", a.send(nil, p(a.pop(a.instance, nil))), "invalid_client", "invalid_request")
		}},
		{"CA-16", func(t *trial) {
			a := t.attested()
			a.begin(t)
			fresh := "invalid_client use_fresh_attestation use_attestation_challenge use_fresh_attestation_challenge"
			a.bad(t, "the proof of another key", a.send(p(a.attestation(nil, nil)), p(a.pop(newKey("ES256"), nil))))
			a.bad(t, "no challenge", a.send(p(a.attestation(nil, nil)), p(a.pop(a.instance, m{"challenge": nil}))), fresh)
			a.bad(t, "a forged challenge", a.send(p(a.attestation(nil, nil)), p(a.pop(a.instance, m{"challenge": random(32)}))), fresh)
			ch := a.challenge()
			t.check(a.send(p(a.attestation(nil, nil)), p(a.pop(a.instance, m{"challenge": ch}))).ok(), "a challenge of ours")
			a.bad(t, "the challenge again", a.send(p(a.attestation(nil, nil)), p(a.pop(a.instance, m{"challenge": ch}))), fresh)
			ch = a.challenge()
			t.s.later(20 * time.Minute)
			a.bad(t, "an old challenge", a.send(p(a.attestation(nil, nil)), p(a.pop(a.instance, m{"challenge": ch}))), fresh)
			a.bad(t, "sub is another client", a.send(p(a.attestation(nil, m{"sub": goodID})), p(a.pop(a.instance, nil))))
			b := a.send(p(a.attestation(m{"typ": "JWT"}, nil)), p(a.pop(a.instance, nil)))
			a.bad(t, "typ of the attestation", b)
		}},
	},
}

// audienceInjection: an attacker's authorization server publishes the honest
// server's token endpoint as its own. The toolkit must not sign an assertion that
// the honest server would take. The same server without the lie is where it signs.
func audienceInjection(t *trial) {
	sign := func(name, endpoint string) (sent []string, err error) {
		evil := t.w.host(name)
		base := evil.url("")
		evil.put("/.well-known/oauth-protected-resource/mcp", jsonResponse(m{"resource": base + "/mcp", "authorization_servers": []string{base}}))
		evil.put("/.well-known/oauth-authorization-server", jsonResponse(m{
			"issuer": base, "authorization_endpoint": base + "/authorize", "token_endpoint": endpoint, "jwks_uri": base + "/jwks",
			"response_types_supported": []string{"code"}, "code_challenge_methods_supported": []string{"S256"}, "client_id_metadata_document_supported": true,
			"token_endpoint_auth_methods_supported": []string{"private_key_jwt"}, "token_endpoint_auth_signing_alg_values_supported": []string{"ES256"},
		}))
		key, err := client.GenerateKey("ES256")
		if err != nil {
			t.fatal("%v", err)
		}
		tr := t.w.transport(t.w.address(), t.s)
		catch := roundTrip(func(r *http.Request) (*http.Response, error) {
			if r.Method == http.MethodPost {
				r.ParseForm()
				sent = append(sent, r.PostForm.Get("client_assertion"))
			}
			return tr.RoundTrip(r)
		})
		c, err := client.New(client.Config{ID: "https://assert.test/c.json", Key: key, HTTP: &http.Client{Transport: catch}})
		if err != nil {
			t.fatal("%v", err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		s, err := c.Discover(ctx, base+"/mcp")
		if err != nil {
			return sent, err
		}
		f, err := c.Begin(ctx, s, "http://127.0.0.1:9999/callback", nil)
		if err != nil {
			return sent, err
		}
		_, err = f.Finish(ctx, url.Values{"code": {"x"}, "state": {stateOf(f.URL)}, "iss": {base}}.Encode())
		return sent, err
	}
	own, err := sign("own-as.test", "https://own-as.test/token")
	t.check(len(own) > 0 && claimOf(own[0], "aud") == "https://own-as.test", "without a lie nothing is signed: the row proves nothing (%v, %v)", own, err)
	sent, err := sign("evil-as.test", issuer+"/token")
	t.check(err != nil, "the toolkit signed in with a code that is none")
	for _, s := range sent {
		t.check(claimOf(s, "aud") == "https://evil-as.test", "it signed for %v", claimOf(s, "aud"))
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func stateOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return u.Query().Get("state")
}
