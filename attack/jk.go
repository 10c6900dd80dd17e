package main

import (
	"fmt"
	"math/big"
	"strings"
	"time"
)

// keysIn wants a document with keys in it refused.
func (t *trial) keysIn(what string, set ...any) {
	h := t.w.host(fresh("inline"))
	id := h.client("/c.json", m{"token_endpoint_auth_method": "private_key_jwt", "jwks": m{"keys": set}})
	t.local(what, t.john.visit(azOf(id)), 400)
}

func (t *trial) refusedAssertion(k *keyed, what, assertion string) {
	a := k.auth(assertion)
	if len(assertion) > 64<<10 && a.err != nil { // the server answers and closes before all of it is sent
		t.check(t.s.get("/readyz").ok(), "%s: %s, and then nothing", what, a)
		return
	}
	t.check(a.is(401, "invalid_client") || (a.status == 400 || a.status == 413) && a.str("error") == "invalid_request", "%s: %s", what, a)
	t.check(!oracles.MatchString(a.raw) && len(a.raw) < 2000, "%s: it tells too much: %s", what, a)
}

var groupJK = group{
	name:    "JK",
	options: options{changes: []string{"", "sessions: {idle: 720h, absolute: 2000h}"}},
	prepare: func(e *env) {
		t := &trial{env: e}
		k := t.keyed("keys.test", nil, "ES256", "RS256")
		if a := k.redeem(k.codeOf(e.john), k.assert(nil)); !a.ok() {
			panic(stop{"no tokens for a client with keys: " + a.String()})
		}
		e.vars["k"] = k
	},
	rows: []row{
		{"JK-01", func(t *trial) {
			k := newKey("ES256")
			t.keysIn("d", k.private())
			t.keysIn("one private of two", newKey("ES256").jwk(nil), k.private())
			t.keysIn("k", m{"kty": "oct", "k": "c2VjcmV0"})
			rsa := newKey("RS256")
			for _, name := range []string{"p", "q", "dp", "dq", "qi", "oth"} {
				t.keysIn(name, rsa.jwk(m{name: "AQAB"}))
			}
		}},
		{"JK-03", func(t *trial) {
			k := t.vars["k"].(*keyed)
			rsa := k.keys[1]
			head, rest, _ := strings.Cut(k.assert(nil), ".")
			payload, _, _ := strings.Cut(rest, ".")
			for _, alg := range []string{"none", "None", "NONE", ""} {
				t.refusedAssertion(k, "alg "+alg, b64JSON(m{"alg": alg, "kid": k.keys[0].kid})+"."+payload+".")
			}
			t.refusedAssertion(k, "no signature", head+"."+payload+".")
			for what, secret := range map[string][]byte{"the JWK": []byte(compact(rsa.jwk(nil))), "n": rsa.rsa.N.Bytes(), "the PEM": pemOf(rsa)} {
				for _, kid := range []string{rsa.kid, k.keys[0].kid} {
					t.refusedAssertion(k, "HS256 with "+what, hmacked(k.claims(nil), secret, m{"kid": kid}))
				}
			}
			b := k.auth(k.assert(nil))
			t.check(b.ok(), "a good one: %s", b)
		}},
		{"JK-05", func(t *trial) {
			k, evil := t.vars["k"].(*keyed), newKey("ES256")
			h := t.w.host("evil.test")
			h.put("/jwks.json", jsonResponse(m{"keys": []any{evil.jwk(nil)}}))
			for _, head := range []m{{"jku": "https://evil.test/jwks.json"}, {"x5u": "https://evil.test/x"}, {"jwk": evil.jwk(nil)}, {"x5c": []string{"AAAA"}}, {"jku": "http://169.254.169.254/"}} {
				head["kid"] = k.keys[0].kid
				t.refusedAssertion(k, compact(head)[:20], evil.sign(head, k.claims(nil)))
			}
			t.check(h.count("/jwks.json") == 0, "the keys of the header were fetched")
		}},
		{"JK-06", func(t *trial) {
			k := t.vars["k"].(*keyed)
			for _, kid := range []any{"../../../../dev/null", "' OR 1=1--", strings.Repeat("k", 10_000), strings.Repeat("k", 64<<10), "a\r\nb", "a\x00b", 1, []string{k.keys[0].kid}, "", "%2e%2e", "\x1b[2J"} {
				evil := newKey("ES256")
				t.refusedAssertion(k, fmt.Sprintf("%.30q", kid), evil.sign(m{"kid": kid}, k.claims(nil)))
			}
			t.check(!strings.ContainsAny(strings.ReplaceAll(t.s.output(), "\n", ""), "\x00\r\x1b"), "raw bytes in the log")
		}},
		{"JK-07", func(t *trial) {
			k := t.keyed(fresh("weak"), nil, "ES256")
			good := k.keys[0]
			rsa := func(bits int, e *big.Int) m {
				n := new(big.Int).SetBit(big.NewInt(1), bits-1, 1)
				return m{"kty": "RSA", "kid": fmt.Sprint("rsa", bits), "n": b64(n.Bytes()), "e": b64(e.Bytes())}
			}
			five := big.NewInt(65537)
			bad := []any{
				good.jwk(m{"kty": "RSA"}), rsa(1024, five), rsa(16384, five), rsa(2048, big.NewInt(1)), rsa(2048, new(big.Int).Lsh(big.NewInt(1), 64)), rsa(2048, big.NewInt(2)),
				good.jwk(m{"kid": "curve", "x": good.jwk(nil)["y"]}), good.jwk(m{"kid": "infinity", "x": b64(make([]byte, 32)), "y": b64(make([]byte, 32))}), m{"kty": "OKP", "crv": "Ed25519", "kid": "low", "x": b64(make([]byte, 32))}, "no key", nil, 1,
			}
			k.host.put("/jwks.json", jsonResponse(m{"keys": append(bad, good.jwk(nil))}))
			a := k.redeem(k.codeOf(t.john), k.assert(nil))
			t.check(a.ok(), "the good key among bad ones: %s", a)
			// What the low-order point and e = 1 would let everybody sign.
			head := b64JSON(m{"alg": "EdDSA", "kid": "low"})
			t.refusedAssertion(k, "a low-order point", head+"."+b64JSON(k.claims(nil))+"."+b64(make([]byte, 64)))
			head = b64JSON(m{"alg": "RS256", "kid": "rsa2048"})
			t.refusedAssertion(k, "e = 1", head+"."+b64JSON(k.claims(nil))+"."+b64(make([]byte, 256)))
			lots := t.keyed(fresh("lots"), nil, "ES256")
			var set []any
			for i := range 500 {
				set = append(set, lots.keys[0].jwk(m{"kid": fmt.Sprint(i)}))
			}
			lots.host.put("/jwks.json", jsonResponse(m{"keys": set}))
			pg := t.john.consent(azOf(lots.id))
			if pg.code() != "" {
				b := lots.redeem(pg.code(), lots.assert(nil))
				t.check(b.is(401, "invalid_client") && b.took < 2*time.Second, "500 keys: %s in %v", b, b.took)
			} else {
				t.check(!pg.left && pg.status >= 400, "500 keys: %s", pg)
			}
			t.check(lots.host.count("/jwks.json") > 0, "500 keys were not even fetched")
			two := t.keyed(fresh("twokids"), nil, "ES256", "EdDSA")
			two.keys[1].kid = two.keys[0].kid
			two.publish(two.keys...)
			b := two.redeem(two.codeOf(t.john), two.assert(nil))
			t.check(b.ok() || b.is(401, "invalid_client"), "two keys with one kid: %s", b)
			less := t.keyed(fresh("nokid"), nil, "ES256")
			less.keys[0].less = true
			less.host.put("/jwks.json", jsonResponse(m{"keys": []any{less.keys[0].jwk(m{"kid": nil})}}))
			b = less.redeem(less.codeOf(t.john), less.assert(nil))
			t.check(b.ok(), "a key without a kid: %s", b)
		}},
		{"JK-08", func(t *trial) {
			k := t.keyed(fresh("use"), nil, "ES256", "RS256")
			good := k.keys[0]
			k.host.put("/jwks.json", jsonResponse(m{"keys": []any{good.jwk(nil), k.keys[1].jwk(nil), good.jwk(m{"kid": "enc", "use": "enc"}), good.jwk(m{"kid": "ops", "use": nil, "key_ops": []string{"encrypt"}}), good.jwk(m{"kid": "es384", "alg": "ES384"})}}))
			a := k.redeem(k.codeOf(t.john), k.assert(nil))
			t.check(a.ok(), "the good key: %s", a)
			for _, kid := range []string{"enc", "ops", "es384"} {
				t.refusedAssertion(k, kid, good.sign(m{"kid": kid}, k.claims(nil)))
			}
			other := *k.keys[1]
			other.alg = "PS256"
			t.refusedAssertion(k, "PS256 with a key for RS256", other.sign(nil, k.claims(nil)))
			t.check(k.auth(k.keys[1].sign(nil, k.claims(nil))).ok(), "RS256 with that key")
		}},
		{"JK-09", func(t *trial) {
			k := t.keyed(fresh("kids"), nil, "ES256")
			if a := k.redeem(k.codeOf(t.john), k.assert(nil)); !a.ok() {
				t.fatal("%s", a)
			}
			t.s.later(31 * time.Second)
			before, evil := k.host.count("/jwks.json"), newKey("ES256")
			field := t.w.field(t.s)
			for n := range max(t.w.rounds/2, 20) {
				evil.kid = random(12)
				for _, a := range race(field, "/revoke", values(with(evil.sign(nil, k.claims(nil)), "token", "x")...).Encode()) {
					t.check(a.err == nil && a.status >= 400 && a.status < 500, "round %d: %s", n, a)
				}
			}
			t.check(k.host.count("/jwks.json")-before == 1, "%d fetches of the key set, one is right", k.host.count("/jwks.json")-before)
			t.s.later(2 * time.Minute) // those who guess are slowed down by their address, too
			b := k.auth(k.assert(nil))
			t.check(b.ok(), "the honest key afterwards: %s", b)
		}},
		{"JK-11", func(t *trial) {
			k := t.keyed(fresh("rotate"), nil, "ES256")
			old, next := k.keys[0], newKey("ES256")
			t.check(k.redeem(k.codeOf(t.john), k.assert(nil)).ok(), "the first key")
			t.s.later(31 * time.Second)
			k.publish(old, next)
			for what, key := range map[string]*key{"new": next, "old": old} {
				a := k.auth(key.sign(nil, k.claims(nil)))
				t.check(a.ok(), "%s key, both published: %s", what, a)
			}
			k.publish(next)
			t.s.later(2 * time.Hour)
			t.refusedAssertion(k, "the old key after it was taken away", old.sign(nil, k.claims(nil)))
			a := k.auth(next.sign(nil, k.claims(nil)))
			t.check(a.ok(), "the new key: %s", a)
		}},
		{"JK-12", func(t *trial) {
			k := t.keyed(fresh("flap"), nil, "ES256")
			t.check(k.redeem(k.codeOf(t.john), k.assert(nil)).ok(), "at first")
			for what, bad := range map[string]response{"500": statusResponse(500), "an empty set": jsonResponse(m{"keys": []any{}}), "no set": jsonResponse("x")} {
				k.host.put("/jwks.json", bad)
				t.s.later(62 * time.Minute)
				t.refusedAssertion(k, what+": a stranger's key", newKey("ES256").sign(nil, k.claims(nil)))
				k.publish(k.keys...)
				t.s.later(2 * time.Minute)
				a := k.auth(k.assert(nil))
				t.check(a.ok(), "after %s: %s", what, a)
			}
			k.host.change(func(h *host) { h.down = true })
			t.s.later(65 * time.Minute)
			a := k.auth(k.assert(nil))
			t.check(a.ok(), "while the host is down: %s", a)
			k.host.change(func(h *host) { h.down = false })
			t.s.later(65 * time.Minute)
			k.auth(k.assert(nil))
			k.host.remove("/jwks.json")
			t.s.later(65 * time.Minute)
			t.refusedAssertion(k, "404", k.assert(nil))
		}},
		{"JK-13", func(t *trial) {
			h := t.w.host(fresh("self"))
			t.local("jwks_uri is the client_id", t.john.visit(azOf(h.client("/c.json", m{"token_endpoint_auth_method": "private_key_jwt", "jwks_uri": h.url("/c.json")}))), 400)
			ours := t.keyed(fresh("ours"), m{"jwks_uri": issuer + "/jwks"}, "ES256")
			pg := t.john.visit(azOf(ours.id))
			if pg.asks() {
				a := ours.redeem(t.john.answer(pg, "allow").code(), ours.assert(nil))
				t.check(a.is(401, "invalid_client"), "our own key set: %s", a)
			} else {
				t.local("our own key set", pg, 400)
			}
			victim := t.vars["k"].(*keyed)
			thief := t.keyed(fresh("thief"), m{"jwks_uri": "https://keys.test/jwks.json"}, "ES256")
			code := thief.codeOf(t.john)
			a := thief.redeem(code, victim.assert(nil))
			t.check(a.is(401, "invalid_client"), "the assertion of another client: %s", a)
			a = thief.redeem(code, victim.assert(nil), "client_id", "")
			t.check(a.is(400, "invalid_grant"), "a code for a thief with the assertion of a victim: %s", a)
		}},
		{"JK-14", func(t *trial) {
			jwks := func() map[string]bool {
				out := map[string]bool{}
				list, _ := t.s.get("/jwks").body["keys"].([]any)
				for _, k := range list {
					kid, _ := k.(map[string]any)["kid"].(string)
					t.check(!out[kid], "two keys with the kid %s", kid)
					out[kid] = true
					t.check(k.(map[string]any)["d"] == nil, "a private key is published")
				}
				return out
			}
			first := jwks()
			a := t.john.grant("prompt", "consent")
			if _, err := t.s.cli("", "keys", "rotate"); err != nil {
				t.fatal("%v", err)
			}
			t.s.later(2 * time.Minute)
			second := jwks()
			t.check(len(second) == len(first)+1, "%d keys are published, %d before", len(second), len(first))
			t.check(t.s.active(a.str("access_token")), "a token from before the rotation")
			t.s.later(61 * time.Minute)
			b := t.john.grant("prompt", "consent")
			for kid := range first {
				t.check(jwks()[kid], "the key %s went while its tokens could live", kid)
			}
			t.check(t.s.active(b.str("access_token")), "a token of the new key")
			if t.w.engine.name() == "postgres" {
				twins(t)
			}
		}},
	},
}

// twins starts two replicas on one empty database at once: they must agree on
// one signing key.
func twins(t *trial) {
	s := t.another(options{})
	defer s.kill()
	second, err := t.w.start(options{addr: "93.184.216.54", twin: s})
	if err != nil {
		t.fatal("%v", err)
	}
	defer second.kill()
	a, b := s.get("/jwks"), second.get("/jwks")
	t.check(a.ok() && a.raw == b.raw, "two replicas publish %s and %s", a, b)
}
