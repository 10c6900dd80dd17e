package authorize

import (
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/cimd"
	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/internal/policy"
	"github.com/bonafide-id/bonafide/oauth"
)

// signer is a client that signs its requests.
type signer struct {
	t    testing.TB
	p    *place
	keys map[string]jose.Private // by algorithm
}

func (p *place) signer(algs ...string) *signer {
	p.t.Helper()
	s := &signer{t: p.t, p: p, keys: map[string]jose.Private{}}
	p.dir.keys = map[string][]jose.Key{}
	for _, alg := range algs {
		k, err := jose.Generate(alg)
		if err != nil {
			p.t.Fatal(err)
		}
		s.keys[alg] = k
		p.dir.keys[keyedID] = append(p.dir.keys[keyedID], k.Public())
	}
	return s
}

// claims are those of a good object, with changes; nil takes a claim away.
func (s *signer) claims(changes map[string]any) map[string]any {
	now := s.p.clock.Now().Unix()
	c := map[string]any{"iss": keyedID, "aud": issuer, "iat": now, "exp": now + 300, "resource": resource}
	for name, v := range asks(keyedID) {
		if name != "resource" {
			c[name] = v[0]
		}
	}
	maps.Copy(c, changes)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	return c
}

func (s *signer) sign(changes map[string]any) string {
	return s.signAs(jose.ES256, oauth.TypRequestObject, s.claims(changes))
}

func (s *signer) signAs(alg, typ string, claims any) string {
	s.t.Helper()
	raw, err := s.keys[alg].Sign(typ, claims)
	if err != nil {
		s.t.Fatal(err)
	}
	return raw
}

// visitor is somebody whom another site sent here: signed in, or not if user is
// empty. Nothing is answered from memory for them.
func (p *place) visitor(user string) *person {
	b := p.browser()
	if user != "" {
		b.signIn(user)
	}
	b.site = "cross-site"
	return b
}

// carries is a request by its object alone.
func carries(object string, pairs ...string) url.Values {
	v := url.Values{"client_id": {keyedID}, "request": {object}}
	for i := 0; i+1 < len(pairs); i += 2 {
		v.Set(pairs[i], pairs[i+1])
	}
	return v
}

func TestSignedRequests(t *testing.T) {
	p := open(t)
	s := p.signer(jose.ES256, jose.RS256)
	stranger, err := jose.Generate(jose.ES256)
	if err != nil {
		t.Fatal(err)
	}
	now := p.clock.Now().Unix()
	set := func(name string, v any) string { return s.sign(map[string]any{name: v}) }
	good := s.sign(nil)
	unsigned := good[:strings.LastIndexByte(good, '.')+1]
	forged, _ := stranger.Sign(oauth.TypRequestObject, s.claims(nil))
	for _, r := range []struct {
		name   string
		object string
		says   string // in the hint; "" if the object is in order
	}{
		{"AUTHZ-25 a good object", good, ""},
		{"AUTHZ-25 without a type", s.signAs(jose.ES256, "", s.claims(nil)), ""},
		{"AUTHZ-25 the long form of the type", s.signAs(jose.ES256, "application/oauth-authz-req+jwt", s.claims(nil)), ""},
		{"AUTHZ-25 another algorithm of the client", s.signAs(jose.RS256, oauth.TypRequestObject, s.claims(nil)), ""},
		{"AUTHZ-25 aud as a list of one", set("aud", []string{issuer}), ""},
		{"AUTHZ-25 resource as a list", set("resource", []string{resource, resource}), ""},
		{"AUTHZ-25 max_age as a number", set("max_age", 3600), ""},
		{"AUTHZ-26 authorization_details as JSON", set("authorization_details", []any{map[string]any{"type": "repository", "repository": "a"}}), ""},
		{"AUTHZ-25 a claim that nobody knows", set("nonsense", true), ""},
		{"AUTHZ-25 attack AZ-15: no signature", unsigned, "signature"},
		{"AUTHZ-25 attack AZ-15: alg none", "eyJhbGciOiJub25lIn0." + strings.Split(good, ".")[1] + ".", ""},
		{"AUTHZ-25 attack AZ-15: somebody else's key", forged, "signature"},
		{"AUTHZ-25 attack AZ-15: another payload", strings.Join([]string{strings.Split(good, ".")[0], strings.Split(set("state", "evil"), ".")[1], strings.Split(good, ".")[2]}, "."), "signature"},
		{"AUTHZ-25 an encrypted object", "a.b.c.d.e", "encrypted"},
		{"AUTHZ-25 no JWT at all", "hello", "refused"},
		{"AUTHZ-25 an access token", s.signAs(jose.ES256, oauth.TypAccessToken, s.claims(nil)), "type"},
		{"AUTHZ-25 a client assertion by its type", s.signAs(jose.ES256, oauth.TypClientAssertion, s.claims(nil)), "type"},
		{"AUTHZ-25 a client assertion by its subject", set("sub", keyedID), "sub"},
		{"AUTHZ-25 iss is another client", set("iss", goodID), "iss"},
		{"AUTHZ-25 no iss", set("iss", nil), "iss"},
		{"AUTHZ-25 aud is the endpoint", set("aud", issuer+"/authorize"), "aud"},
		{"AUTHZ-25 aud is us and another", set("aud", []string{issuer, "https://evil.test"}), "aud"},
		{"AUTHZ-25 no aud", set("aud", nil), "aud"},
		{"AUTHZ-25 client_id is another one", set("client_id", goodID), "client_id"},
		{"AUTHZ-25 no client_id", set("client_id", nil), "client_id"},
		{"AUTHZ-25 no exp", set("exp", nil), "exp"},
		{"AUTHZ-25 expired", set("exp", now), "expired"},
		{"AUTHZ-25 expires in a day", set("exp", now+86400), "expires more than"},
		{"AUTHZ-25 begins in ten minutes", set("nbf", now+600), "nbf"},
		{"AUTHZ-25 made in ten minutes", set("iat", now+600), "iat"},
		{"AUTHZ-25 made two hours ago", set("iat", now-7200), "lives for more"},
		{"AUTHZ-25 exp is out of range", set("exp", 1e300), "range"},
		{"AUTHZ-25 exp is a text", set("exp", "soon"), "exp has the wrong type"},
		{"AUTHZ-25 a jti of 257 bytes", set("jti", strings.Repeat("j", 257)), "jti"},
		{"AUTHZ-25 a request inside", set("request", good), "holds request"},
		{"AUTHZ-25 a request_uri inside", set("request_uri", "https://evil.test/ro"), "holds request_uri"},
		{"AUTHZ-25 state is a number", set("state", 7), "state has the wrong type"},
		{"AUTHZ-25 scope is a list", set("scope", []string{"issues:read"}), "scope has the wrong type"},
		{"AUTHZ-25 resource is a number", set("resource", 1), "resource has the wrong type"},
		{"AUTHZ-25 max_age is half a second", set("max_age", 0.5), "max_age has the wrong type"},
		{"AUTHZ-13 a state of 5 kB", set("state", strings.Repeat("s", 5000)), "state is longer"},
		{"AUTHZ-25 an object of 11 kB", set("padding", strings.Repeat("p", 11<<10)), "longer than"},
	} {
		t.Run(r.name, func(t *testing.T) {
			b := p.visitor("john")
			page := b.authorize(carries(r.object))
			if r.says == "" && !strings.Contains(r.name, "none") {
				asked(t, page)
				return
			}
			if page.StatusCode != http.StatusBadRequest || page.Header.Get("Location") != "" || !strings.Contains(page.body, "invalid_request_object") {
				t.Fatalf("got %d to %q\n%s", page.StatusCode, page.Header.Get("Location"), page.body)
			}
			if !strings.Contains(page.body, r.says) {
				t.Errorf("the page does not say %q:\n%s", r.says, page.body)
			}
		})
	}
}

func TestWhatASignedRequestSaysIsAllThatCounts(t *testing.T) {
	p := open(t)
	s := p.signer(jose.ES256, jose.RS256)
	t.Run("AUTHZ-25 parameters beside the object are not looked at", func(t *testing.T) {
		b := p.visitor("john")
		page := b.authorize(carries(s.sign(nil), "redirect_uri", "https://evil.test/cb", "scope", "admin", "state", "evil", "prompt", "none"))
		asked(t, page)
		if strings.Contains(page.body, "evil.test") || strings.Contains(page.body, "change settings") {
			t.Error("the page shows what stands beside the object")
		}
		if got := b.decide(page, "allow").location(t).Get("state"); got != "s1" {
			t.Errorf("state %q", got)
		}
	})
	t.Run("AUTHZ-25 a parameter that only stands outside is missing", func(t *testing.T) {
		page := p.visitor("john").authorize(carries(s.sign(map[string]any{"code_challenge": nil}), "code_challenge", challenge))
		if page.location(t).Get("error") != "invalid_request" || !strings.Contains(page.Header.Get("Location"), "code_challenge+is+missing") {
			t.Errorf("%d %s", page.StatusCode, page.body)
		}
	})
	t.Run("AUTHZ-25 client_id outside is needed", func(t *testing.T) {
		v := carries(s.sign(nil))
		v.Del("client_id")
		if page := p.visitor("john").authorize(v); page.StatusCode != http.StatusBadRequest || page.transaction() != "" {
			t.Errorf("%d", page.StatusCode)
		}
	})
	t.Run("AUTHZ-25 request and request_uri exclude each other", func(t *testing.T) {
		if page := p.visitor("john").authorize(carries(s.sign(nil), "request_uri", uriPrefix+"x")); !strings.Contains(page.body, "exclude each other") {
			t.Errorf("%d %s", page.StatusCode, page.body)
		}
	})
	t.Run("AUTHZ-25 a form becomes a query with the same object", func(t *testing.T) {
		b := p.visitor("john")
		object := s.sign(nil)
		res := b.do(http.MethodPost, "/authorize", carries(object))
		u, err := url.Parse(res.Header.Get("Location"))
		if err != nil || res.StatusCode != http.StatusSeeOther || u.Query().Get("request") != object || u.Query().Get("client_id") != keyedID {
			t.Fatalf("%d %s", res.StatusCode, res.Header.Get("Location"))
		}
		asked(t, b.get(u.RequestURI()))
	})
	t.Run("DOC-30 only the algorithm of the document", func(t *testing.T) {
		p.dir.put(keyedID, func(d *cimd.Document) { d.RequestObjectAlg = jose.RS256 })
		defer p.dir.put(keyedID, func(d *cimd.Document) { d.RequestObjectAlg = "" })
		b := p.visitor("john")
		if page := b.authorize(carries(s.sign(nil))); !strings.Contains(page.body, "document says RS256") {
			t.Errorf("%d %s", page.StatusCode, page.body)
		}
		asked(t, b.authorize(carries(s.signAs(jose.RS256, "", s.claims(nil)))))
	})
	t.Run("POL-03, POL-09 only the algorithms of the policy", func(t *testing.T) {
		p.rule(policy.Rule{Name: "strong", Host: "keyed.example.com", Action: policy.Allow, SigningAlgs: []string{jose.ES256}})
		defer func() { p.dir.policy = testPolicy(); p.dir.policy.Check() }()
		b := p.visitor("john")
		before := p.dir.lookups
		page := b.authorize(carries(s.signAs(jose.RS256, "", s.claims(nil))))
		if !strings.Contains(page.body, "strong") || !strings.Contains(page.body, "does not accept RS256") {
			t.Errorf("%d %s", page.StatusCode, page.body)
		}
		if p.dir.lookups != before {
			t.Error("keys were looked up for an algorithm that is refused anyway")
		}
	})
	t.Run("DOC-30 require_signed_request_object", func(t *testing.T) {
		p.dir.put(keyedID, func(d *cimd.Document) { d.RequireSignedRequest = true })
		defer p.dir.put(keyedID, func(d *cimd.Document) { d.RequireSignedRequest = false })
		b := p.visitor("john")
		if page := b.authorize(asks(keyedID)); page.transaction() != "" || !strings.Contains(page.body, "require_signed_request_object") {
			t.Errorf("%d %s", page.StatusCode, page.body)
		}
		asked(t, b.authorize(carries(s.sign(nil))))
	})
	t.Run("AUTHZ-25 keys that cannot be had are the client's trouble, without particulars", func(t *testing.T) {
		for name, err := range map[string]error{"resolver": &cimd.Error{Kind: "dial", Rule: "FETCH-05"}, "told": oauth.Refuse(oauth.TemporarilyUnavailable, "10.0.0.7 refused")} {
			p.dir.noKeys = err
			page := p.visitor("john").authorize(carries(s.sign(nil)))
			if page.StatusCode != http.StatusBadRequest || !strings.Contains(page.body, "keys of the client cannot be had") || strings.Contains(page.body, "10.0.0.7") {
				t.Errorf("%s: %d %s", name, page.StatusCode, page.body)
			}
		}
		p.dir.noKeys = errors.New("the disk is gone")
		if page := p.visitor("john").authorize(carries(s.sign(nil))); page.StatusCode != http.StatusInternalServerError {
			t.Errorf("a failure of our own: %d", page.StatusCode)
		}
		p.dir.noKeys = nil
	})
}

func TestASignedRequestOnItsWay(t *testing.T) {
	p := open(t)
	s := p.signer(jose.ES256)
	t.Run("AUTHZ-25, CACHE-21 it is checked again after the sign-in, and its clock stands still meanwhile", func(t *testing.T) {
		b := p.visitor("")
		sentToSignIn(t, b.authorize(carries(s.sign(map[string]any{"login_hint": "john"}))))
		if got := p.login.last; got.Username != "john" || got.RedirectHost != "https://keyed.example.com/cb" {
			t.Errorf("the sign-in page is told %+v", got)
		}
		p.clock.pass(10 * time.Minute)
		page := b.resumes("john")
		asked(t, page)
		if b.decide(page, "allow").code(t) == "" {
			t.Error("no code")
		}
	})
	t.Run("AUTHZ-25, CACHE-21 a key that was withdrawn meanwhile ends it", func(t *testing.T) {
		b := p.visitor("")
		sentToSignIn(t, b.authorize(carries(s.sign(nil))))
		had := p.dir.keys[keyedID]
		p.dir.keys[keyedID] = nil
		defer func() { p.dir.keys[keyedID] = had }()
		if page := b.resumes("john"); page.transaction() != "" || !strings.Contains(page.body, "invalid_request_object") {
			t.Errorf("%d %s", page.StatusCode, page.body)
		}
	})
	t.Run("AUTHZ-27 in another browser its clock runs", func(t *testing.T) {
		b := p.visitor("")
		sentToSignIn(t, b.authorize(carries(s.sign(nil))))
		p.clock.pass(10 * time.Minute)
		if page := p.visitor("john").resume(); !strings.Contains(page.body, "expired") {
			t.Errorf("%d %s", page.StatusCode, page.body)
		}
	})
	t.Run("FETCH-20 nobody is asked for keys before the sign-in of a stranger's client", func(t *testing.T) {
		p.dir.cold[keyedID] = true
		defer delete(p.dir.cold, keyedID)
		before := p.dir.lookups
		b := p.visitor("")
		sentToSignIn(t, b.authorize(carries(s.sign(nil))))
		if p.dir.lookups != before || p.dir.fetches != 0 {
			t.Errorf("%d look-ups of keys, %d fetches", p.dir.lookups-before, p.dir.fetches)
		}
		asked(t, b.resumes("john"))
		p.dir.cold[keyedID] = true
		if page := p.visitor("").authorize(carries(s.sign(map[string]any{"prompt": "none"}))); !strings.Contains(page.body, "sign in first") {
			t.Errorf("prompt=none: %d %s", page.StatusCode, page.body)
		}
	})
	for _, choice := range []string{"allow", "deny"} {
		t.Run("AUTHZ-25 a jti counts once: "+choice, func(t *testing.T) {
			object := s.sign(map[string]any{"jti": "once " + choice})
			b := p.visitor("john")
			first, second := b.authorize(carries(object)), b.authorize(carries(object)) // loaded again: no harm
			asked(t, first)
			asked(t, second)
			b.decide(first, choice).location(t)
			if res := b.decide(second, choice); res.StatusCode != http.StatusConflict {
				t.Errorf("the second answer: %d", res.StatusCode)
			}
		})
	}
	t.Run("AUTHZ-25 a jti of another client is another one", func(t *testing.T) {
		o := object{Issuer: "a", JTI: "j", Expires: new(float64)}
		other := object{Issuer: "b", JTI: "j", Expires: new(float64)}
		if *o.once() == *other.once() {
			t.Error("they are one")
		}
	})
}

func FuzzRequestObject(f *testing.F) {
	k, err := jose.Generate(jose.ES256)
	if err != nil {
		f.Fatal(err)
	}
	for _, claims := range []string{
		`{"client_id":"` + keyedID + `","iss":"` + keyedID + `","aud":"` + issuer + `","exp":1,"state":"s"}`,
		`{"client_id":"` + keyedID + `","max_age":1,"resource":["a"],"authorization_details":[{"type":"x"}]}`,
		`{"client_id":"` + keyedID + `","request_uri":"x"}`, `{"Client_ID":"` + keyedID + `"}`,
	} {
		f.Add(claims)
	}
	f.Fuzz(func(t *testing.T, claims string) {
		if _, err := jose.Object([]byte(claims)); err != nil {
			return
		}
		raw, err := k.Sign("", json.RawMessage(claims))
		if err != nil {
			return
		}
		m, err := takeApart(raw)
		if err != nil {
			return
		}
		o, err := claimsOf(m, keyedID)
		if err != nil {
			return
		}
		var plain map[string]json.RawMessage
		if err := json.Unmarshal([]byte(claims), &plain); err != nil {
			t.Fatal(err)
		}
		if o.Request.ClientID != keyedID || !o.Request.Signed || plain["request"] != nil || plain["request_uri"] != nil {
			t.Errorf("accepted: %s", claims)
		}
		for _, fd := range fields { // nothing comes from anywhere but the claim of that name
			if v := *fd.at(&o.Request); v != "" && plain[fd.name] == nil || len(v) > fd.max {
				t.Errorf("%s is %q", fd.name, v)
			}
		}
	})
}
