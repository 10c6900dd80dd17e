package main

import (
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// provider is an OpenID provider that signs everybody in as one person, or lies.
type provider struct {
	s   *server
	h   *host
	key *key

	mu     sync.Mutex // guards what follows
	nonces map[string]string
	claims m
	head   m
	sign   func(head, claims m) string
}

// upstream starts a provider and a server that trusts it.
func (t *trial) upstream(discovery m) *provider {
	p := &provider{h: t.w.host(fresh("idp")), key: newKey("ES256"), nonces: map[string]string{}}
	base := p.h.url("")
	meta := m{"issuer": base, "authorization_endpoint": base + "/authorize", "token_endpoint": base + "/token", "jwks_uri": base + "/jwks", "authorization_response_iss_parameter_supported": true}
	for n, v := range discovery {
		meta[n] = v
	}
	p.h.put("/.well-known/openid-configuration", jsonResponse(meta))
	p.h.put("/jwks", jsonResponse(m{"keys": []any{p.key.jwk(nil)}}))
	p.h.script("/token", func(int) response {
		seen := p.h.seen()
		f, _ := url.ParseQuery(seen[len(seen)-1].body)
		p.mu.Lock()
		defer p.mu.Unlock()
		now := p.s.now().Unix()
		c := m{"iss": base, "sub": "u-1", "aud": "bonafide", "iat": now, "exp": now + 300, "nonce": p.nonces[f.Get("code")], "auth_time": now, "email": "upstream@acme.example", "email_verified": true}
		for n, v := range p.claims {
			if c[n] = v; v == nil {
				delete(c, n)
			}
		}
		head := m{"typ": "JWT"}
		for n, v := range p.head {
			head[n] = v
		}
		token := ""
		if p.sign != nil {
			token = p.sign(head, c)
		} else {
			token = p.key.sign(head, c)
		}
		return jsonResponse(m{"access_token": "up", "token_type": "Bearer", "id_token": token})
	})
	p.s = t.another(options{changes: []string{"", "upstream: [{name: idp, title: SSO, issuer: '" + base + "', client_id: bonafide, link: [create], domains: [acme.example]}]"}})
	return p
}

// begin presses the button of the provider and returns where the browser is sent.
func (p *provider) begin(who *person, pg *page) *page {
	return who.send(pg.must("with").with("with", "idp"))
}

// back is the address to which the provider sends the browser.
func (p *provider) back(at *page) string {
	q := at.url.Query()
	code := random(8)
	p.mu.Lock()
	p.nonces[code] = q.Get("nonce")
	p.mu.Unlock()
	return q.Get("redirect_uri") + "?" + values("code", code, "state", q.Get("state"), "iss", p.h.url("")).Encode()
}

// signIn walks the whole way from a page that asks for a sign-in.
func (p *provider) signIn(t *trial, who *person, pg *page) *page {
	at := p.begin(who, pg)
	if !at.left || at.url.Host != p.h.name {
		t.fatal("the browser is not sent to the provider: %s", at)
	}
	return who.visit(p.back(at))
}

// brokered: whoever has a session upstream is still asked about each client.
func (t *trial) brokered() {
	p := t.upstream(nil)
	t.at(p.s, func(*person) {
		evil := t.w.host(fresh("deputy")).client("/c.json", nil)
		victim := t.s.person()
		pg := p.signIn(t, victim, victim.visit(az()))
		t.asks("the honest client", pg)
		t.check(t.john.answer(t.john.visit(az()), "allow").code() != "", "a local account")
		back := victim.answer(pg, "allow")
		t.check(back.code() != "", "the honest client gets no code: %s", back)
		for _, site := range []string{"none", "cross-site"} {
			pg = victim.from(azOf(evil), site)
			t.asks("the attacker's client, "+site, pg)
			t.check(strings.Contains(pg.text(), "deputy"), "the page does not name the client: %s", pg)
		}
		fresh := t.s.person() // no session here, one at the provider
		pg = p.signIn(t, fresh, fresh.visit(azOf(evil)))
		t.asks("straight from the provider", pg)
	})
}

// copied: who began elsewhere cannot be finished by a victim.
func (t *trial) copied() {
	p := t.upstream(nil)
	t.at(p.s, func(*person) {
		attacker, victim := t.s.person(), t.s.person()
		at := p.begin(attacker, attacker.visit(az()))
		pg := victim.visit(p.back(at))
		t.forbidden("the callback in another browser", pg)
		t.check(victim.cookie(sessionCookie) == "" && victim.visit(az()).has("password"), "the victim is signed in")
		signed := t.s.person()
		p.signIn(t, signed, signed.visit(issuer+"/login"))
		at = p.begin(attacker, attacker.visit(az()))
		t.forbidden("in a browser that is signed in", signed.visit(p.back(at)))
		pg = attacker.visit(p.back(at))
		t.check(pg.code() == "", "the attacker gets a code: %s", pg)
	})
}

// forced: nobody can sign a stranger's browser in.
func (t *trial) forced() {
	p := t.upstream(nil)
	t.at(p.s, func(*person) {
		attacker, victim := t.s.person(), t.s.person()
		at := p.begin(attacker, attacker.visit(issuer+"/login"))
		good, _ := url.Parse(p.back(at))
		victim.visit(issuer + "/login")
		for what, edit := range map[string]func(url.Values){
			"as it is": func(url.Values) {}, "no state": func(q url.Values) { q.Del("state") }, "another state": func(q url.Values) { q.Set("state", random(32)) }, "an empty state": func(q url.Values) { q.Set("state", "") },
		} {
			u := *good
			q := u.Query()
			edit(q)
			u.RawQuery = q.Encode()
			pg := victim.visit(u.String())
			t.forbidden(what, pg)
			t.check(victim.cookie(sessionCookie) == "", "%s: the browser is signed in", what)
		}
		at = p.begin(victim, victim.visit(issuer+"/login")) // and in its own browser, spoiled
		for what, edit := range map[string]func(url.Values){"iss of another": func(q url.Values) { q.Set("iss", "https://evil.test") }, "no iss": func(q url.Values) { q.Del("iss") }, "an error": func(q url.Values) { q.Del("code"); q.Set("error", "access_denied") }} {
			at = p.begin(victim, victim.visit(issuer+"/login"))
			u, _ := url.Parse(p.back(at))
			q := u.Query()
			edit(q)
			u.RawQuery = q.Encode()
			pg := victim.visit(u.String())
			t.check(!pg.left && victim.cookie(sessionCookie) == "", "%s: %s", what, pg)
		}
		local := attacker.visit(issuer+"/login").must("password").with("username", "john").with("password", password)
		pg := victim.send(local)
		t.check(pg.status >= 400 && victim.cookie(sessionCookie) == "", "the attacker's form in the victim's browser: %s", pg)
		local = victim.visit(issuer+"/login").must("password").with("username", "john").with("password", password)
		local.origin = "https://evil.test"
		t.forbidden("the form from another site", victim.send(local), 403)
		pg = p.signIn(t, victim, victim.visit(issuer+"/login"))
		t.check(victim.cookie(sessionCookie) != "", "the honest way: %s", pg)
	})
}

// lyingProvider: an ID token that does not fit signs nobody in.
func (t *trial) lyingProvider() {
	p := t.upstream(nil)
	t.at(p.s, func(*person) {
		honest := t.s.person()
		p.signIn(t, honest, honest.visit(issuer+"/login"))
		t.check(honest.cookie(sessionCookie) != "", "the honest way")
		now := t.s.now().Unix()
		evil := newKey("ES256")
		evil.kid = p.key.kid
		for what, lie := range map[string]struct {
			claims m
			sign   func(head, claims m) string
		}{
			"iss": {m{"iss": "https://evil.test"}, nil}, "aud": {m{"aud": "other"}, nil}, "aud of two": {m{"aud": []string{"bonafide", "other"}}, nil}, "no aud": {m{"aud": nil}, nil}, "expired": {m{"exp": now - 300, "iat": now - 900}, nil}, "no exp": {m{"exp": nil}, nil},
			"nonce": {m{"nonce": "other"}, nil}, "no nonce": {m{"nonce": nil}, nil}, "no sub": {m{"sub": nil}, nil}, "iat in an hour": {m{"iat": now + 3600, "exp": now + 7200}, nil}, "azp": {m{"azp": "other", "aud": []string{"bonafide", "other"}}, nil},
			"alg none":     {nil, func(_, c m) string { return b64JSON(m{"alg": "none"}) + "." + b64JSON(c) + "." }},
			"another key":  {nil, func(h, c m) string { return evil.sign(h, c) }},
			"HS256":        {nil, func(_, c m) string { return hmacked(c, []byte(compact(p.key.jwk(nil))), m{"kid": p.key.kid}) }},
			"a broken JWT": {nil, func(_, c m) string { return "a.b.c" }},
		} {
			p.mu.Lock()
			p.claims, p.sign = lie.claims, lie.sign
			p.mu.Unlock()
			b := t.s.person()
			pg := p.signIn(t, b, b.visit(issuer+"/login"))
			t.check(!pg.left && b.cookie(sessionCookie) == "", "%s: %s", what, pg)
			t.s.later(2 * time.Second)
		}
	})
	for what, discovery := range map[string]m{
		"token_endpoint at 169.254.169.254": {"token_endpoint": "https://169.254.169.254/token"}, "jwks_uri at 10.0.0.1": {"jwks_uri": "https://10.0.0.1/jwks"}, "token_endpoint http": {"token_endpoint": "http://169.254.169.254/latest"}, "another issuer": {"issuer": "https://evil.test"},
	} {
		p := t.upstream(discovery)
		t.at(p.s, func(*person) {
			b := t.s.person()
			at := p.begin(b, b.visit(issuer+"/login"))
			if at.left {
				at = b.visit(p.back(at))
			}
			t.check(!at.left && b.cookie(sessionCookie) == "" && at.status != http.StatusOK || at.has("password"), "%s: %s", what, at)
		})
	}
}
