package main

import (
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// proof makes a DPoP proof.
func (t *trial) proof(k *key, method, target string, head, change m) string {
	c := m{"jti": random(16), "htm": method, "htu": target, "iat": t.s.now().Unix()}
	for n, v := range change {
		if c[n] = v; v == nil {
			delete(c, n)
		}
	}
	h := m{"typ": "dpop+jwt", "jwk": k.jwk(m{"kid": nil, "alg": nil, "use": nil}), "kid": nil}
	for n, v := range head {
		h[n] = v
	}
	return k.sign(h, c)
}

func (t *trial) tokenProof(k *key) edit {
	return withHeader("DPoP", t.proof(k, "POST", issuer+"/token", nil, nil))
}

// bound is a grant whose tokens are bound to a key.
func (t *trial) bound(k *key) reply {
	a := t.s.post("/token", codeForm(t.john.codeFor(az("scope", "mcp:read openid"))), t.tokenProof(k))
	if !a.ok() || a.str("token_type") != "DPoP" {
		t.fatal("no bound tokens: %s", a)
	}
	return a
}

var groupDP = group{
	name:    "DP",
	prepare: func(e *env) { (&trial{env: e}).bound(newKey("ES256")) },
	rows: []row{
		{"DP-01", func(t *trial) {
			k := newKey("ES256")
			p := withHeader("DPoP", t.proof(k, "POST", issuer+"/token", nil, nil))
			one, two := t.john.codeFor(az()), t.john.codeFor(az())
			a := t.s.post("/token", codeForm(one), p)
			t.check(a.ok(), "the first time: %s", a)
			a = t.s.post("/token", codeForm(two), p)
			t.check(a.is(400, "invalid_dpop_proof"), "the second time: %s", a)
			if twin := t.twin(); twin != nil {
				a = twin.post("/token", codeForm(two), p)
				t.check(a.is(400, "invalid_dpop_proof"), "at the second replica: %s", a)
			}
			t.check(t.s.post("/token", codeForm(two), t.tokenProof(k)).ok(), "the code is still good")
		}},
		{"DP-02", func(t *trial) {
			k := newKey("ES256")
			jti := random(16)
			code := t.john.codeFor(az())
			send := func(method, target string) reply {
				return t.s.post("/token", codeForm(code), withHeader("DPoP", t.proof(k, method, target, nil, m{"jti": jti})))
			}
			for _, v := range [][2]string{{"get", issuer + "/token"}, {"post", issuer + "/token"}, {"GET", issuer + "/token"}, {"POST", issuer + "/revoke"}, {"POST", "https://evil.test/token"}, {"POST", "http://as.test/token"}, {"POST", ""}, {"", issuer + "/token"}} {
				a := send(v[0], v[1])
				t.check(a.is(400, "invalid_dpop_proof"), "%v: %s", v, a)
			}
			a := t.s.post("/token", codeForm(t.john.codeFor(az())), withHeader("DPoP", t.proof(k, "POST", issuer+"/token", nil, m{"jti": jti})))
			t.check(a.ok(), "a good one: %s", a)
			for _, target := range []string{issuer + "/token?x=1", issuer + "/token#x", "https://AS.test/token", issuer + ":443/token"} {
				a := send("POST", target)
				t.check(a.is(400, "invalid_dpop_proof"), "again as %s: %s", target, a)
			}
		}},
		{"DP-04", func(t *trial) {
			k := newKey("ES256")
			token := t.bound(k).str("access_token")
			a := t.s.get("/userinfo", withHeader("Authorization", "Bearer "+token))
			t.check(a.status == 401, "at /userinfo as Bearer: %s", a)
			a = t.s.get("/userinfo", withHeader("Authorization", "DPoP "+token))
			t.check(a.status == 401, "without a proof: %s", a)
			sum := hashOf(token)
			a = t.s.get("/userinfo", withHeader("Authorization", "DPoP "+token), withHeader("DPoP", t.proof(newKey("ES256"), "GET", issuer+"/userinfo", nil, m{"ath": sum})))
			t.check(a.status == 401, "with another key: %s", a)
			a = t.s.get("/userinfo", withHeader("Authorization", "DPoP "+token), withHeader("DPoP", t.proof(k, "GET", issuer+"/userinfo", nil, nil)))
			t.check(a.status == 401, "without ath: %s", a)
			a = t.s.get("/userinfo", withHeader("Authorization", "DPoP "+token), withHeader("DPoP", t.proof(k, "GET", issuer+"/userinfo", nil, m{"ath": sum})))
			t.check(a.ok(), "the honest way: %s", a)
		}},
		{"DP-06", func(t *trial) {
			k := newKey("ES256")
			token := t.bound(k).str("refresh_token")
			for what, edits := range map[string][]edit{"another key": {t.tokenProof(newKey("ES256"))}, "no proof": nil} {
				a := t.s.post("/token", refreshForm(token), edits...)
				t.check(a.is(400, "invalid_grant") || what == "no proof" && a.is(400, "invalid_dpop_proof"), "%s: %s", what, a)
			}
			a := t.s.post("/token", refreshForm(token), t.tokenProof(k))
			t.check(a.ok() && a.str("token_type") == "DPoP", "the right key: %s", a)
			code := t.john.codeFor(az("dpop_jkt", k.thumbprint()))
			a = t.s.post("/token", codeForm(code), t.tokenProof(newKey("ES256")))
			t.check(a.is(400, "invalid_grant"), "a code for dpop_jkt with another key: %s", a)
			a = t.s.post("/token", codeForm(code), t.tokenProof(k))
			t.check(a.ok(), "and with that key: %s", a)
		}},
		{"DP-07", func(t *trial) {
			s := t.another(options{changes: []string{"", "dpop: {require_nonce: true}"}})
			t.at(s, func(p *person) {
				k := newKey("ES256")
				code := p.codeFor(az())
				send := func(nonce any) reply {
					return s.post("/token", codeForm(code), withHeader("DPoP", t.proof(k, "POST", issuer+"/token", nil, m{"nonce": nonce})))
				}
				a := send(nil)
				nonce := a.header.Get("DPoP-Nonce")
				t.check(a.is(400, "use_dpop_nonce") && nonce != "", "without a nonce: %s", a)
				for what, n := range map[string]any{"forged": random(24), "changed": nonce[:len(nonce)-2] + "AA", "empty": "", "a number": 1} {
					a = send(n)
					t.check((a.is(400, "use_dpop_nonce") || a.is(400, "invalid_dpop_proof")) && a.str("access_token") == "", "%s: %s", what, a)
				}
				s.later(30 * time.Minute)
				code = p.codeFor(az())
				a = send(nonce)
				t.check(a.is(400, "use_dpop_nonce"), "an old one: %s", a)
				a = send(a.header.Get("DPoP-Nonce"))
				t.check(a.ok(), "the fresh one, at the second try: %s", a)
			})
		}},
		{"DP-08", func(t *trial) {
			k := newKey("ES256")
			code := t.john.codeFor(az())
			now := t.s.now().Unix()
			bad := func(what string, proofs ...string) {
				a := t.s.post("/token", codeForm(code), func(r *http.Request) {
					for _, v := range proofs {
						r.Header.Add("DPoP", v)
					}
				})
				t.check(a.is(400, "invalid_dpop_proof"), "%s: %s", what, a)
			}
			one := func(head, change m) string { return t.proof(k, "POST", issuer+"/token", head, change) }
			bad("10 min ago", one(nil, m{"iat": now - 600}))
			bad("in 10 min", one(nil, m{"iat": now + 600}))
			bad("no iat", one(nil, m{"iat": nil}))
			bad("no jti", one(nil, m{"jti": nil}))
			bad("a private key", one(m{"jwk": k.private()}, nil))
			bad("a symmetric key", one(m{"jwk": m{"kty": "oct", "k": "AAAA"}}, nil))
			bad("typ", one(m{"typ": "JWT"}, nil))
			bad("another key in the header", one(m{"jwk": newKey("ES256").jwk(nil)}, nil))
			bad("alg none", b64JSON(m{"typ": "dpop+jwt", "alg": "none", "jwk": k.jwk(nil)})+"."+b64JSON(m{"jti": "x"})+".")
			bad("two proofs", one(nil, nil), one(nil, nil))
			bad("not a JWT", "hello")
			bad("empty", "")
			jti := random(16) // what was refused for its signature did not use the jti up
			bad("a bad signature", one(nil, m{"jti": jti})+"AA")
			good := one(nil, m{"jti": jti})
			bad("the signature of another", good[:len(good)-8]+"AAAAAAAA")
			a := t.s.post("/token", codeForm("nonsense"), withHeader("DPoP", one(nil, m{"jti": "stranger"})))
			t.check(a.is(400, "invalid_grant"), "a stranger's proof: %s", a)
			a = t.s.post("/token", codeForm(code), withHeader("DPoP", good))
			t.check(a.ok(), "the good one with the same jti: %s", a)
			before := t.kept()
			rss := before.rss
			var wg sync.WaitGroup
			var odd atomic.Int64
			for range 4 {
				wg.Go(func() {
					for range 250 {
						if a := t.s.post("/token", codeForm("nonsense"), t.tokenProof(k)); !a.is(400, "invalid_grant") && a.status != 429 && a.status != 503 {
							odd.Add(1)
						}
					}
				})
			}
			wg.Wait()
			t.check(odd.Load() == 0, "%d of 1,000 proofs of strangers were answered oddly", odd.Load())
			after := t.kept()
			t.check(after.rows <= before.rows && after.disk <= before.disk+2<<20, "strangers filled the store with their proofs: %s", after.since(before))
			t.check(t.s.memory("VmRSS") < rss+32<<10, "memory grew from %d to %d KiB", rss, t.s.memory("VmRSS"))
		}},
	},
}
