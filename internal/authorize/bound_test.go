package authorize

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/cimd"
	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/directory"
	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/internal/keyring"
	"github.com/bonafide-id/bonafide/internal/login"
	"github.com/bonafide-id/bonafide/internal/policy"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/internal/web"
	"github.com/bonafide-id/bonafide/oauth"
)

const otherKey = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

func TestACodeBelongsToTheKeysOfItsRequest(t *testing.T) {
	p, d := openPAR(t)
	b := p.visitor("john")
	push := func(form func() []string, headers ...string) store.Code {
		t.Helper()
		uri := p.push(asks(keyedID, append([]string{"client_secret", "right"}, form()...)...), headers...).uri()
		return p.granted(b.consents(named(keyedID, uri)))
	}
	plain := func() []string { return nil }
	asksFor := func() []string { return []string{"dpop_jkt", challenge} }
	t.Run("AUTHZ-28 dpop_jkt in the address of the browser", func(t *testing.T) {
		if c := p.granted(b.consents(asks(goodID, "dpop_jkt", challenge))); c.JKT != challenge {
			t.Errorf("bound to %q", c.JKT)
		}
	})
	t.Run("AUTHZ-28 dpop_jkt in a pushed request", func(t *testing.T) {
		if c := push(asksFor); c.JKT != challenge {
			t.Errorf("bound to %q", c.JKT)
		}
	})
	t.Run("AUTHZ-28 a DPoP proof with a pushed request", func(t *testing.T) {
		if c := push(plain, "DPoP", otherKey); c.JKT != otherKey {
			t.Errorf("bound to %q", c.JKT)
		}
	})
	t.Run("AUTHZ-28 both, of one key", func(t *testing.T) {
		if c := push(asksFor, "DPoP", challenge); c.JKT != challenge {
			t.Errorf("bound to %q", c.JKT)
		}
	})
	t.Run("AUTHZ-28 both, of two keys", func(t *testing.T) {
		p.push(asks(keyedID, "client_secret", "right", "dpop_jkt", challenge), "DPoP", otherKey).refused(t, 400, oauth.InvalidDPoPProof)
	})
	t.Run("AUTHZ-28 without either it belongs to no key", func(t *testing.T) {
		if c := push(plain); c.JKT != "" || c.Grant.InstanceJKT != "" {
			t.Errorf("bound to %q and %q", c.JKT, c.Grant.InstanceJKT)
		}
	})
	t.Run("ATT-09 the instance that pushed the request", func(t *testing.T) {
		d.instance, d.method = otherKey, oauth.MethodAttestation
		defer func() { d.instance, d.method = "", "" }()
		if c := push(asksFor); c.Grant.InstanceJKT != otherKey || c.JKT != challenge {
			t.Errorf("bound to %q and %q", c.JKT, c.Grant.InstanceJKT)
		}
	})
	t.Run("AUTHZ-28 not together with the attested key as DPoP key", func(t *testing.T) {
		d.instance, d.method = otherKey, oauth.MethodAttestationDPoP
		defer func() { d.instance, d.method = "", "" }()
		p.push(asks(keyedID, "client_secret", "right", "dpop_jkt", challenge)).refused(t, 400, oauth.InvalidRequest)
	})
}

func TestPushingWithoutAProof(t *testing.T) {
	t.Run("PAR-11, FETCH-20 nothing is fetched, and everything is checked once the person is there", func(t *testing.T) {
		p, _ := openPAR(t)
		p.dir.cold[goodID] = true
		uri := p.push(asks(goodID), "DPoP", otherKey).uri()
		if p.dir.fetches != 0 {
			t.Fatal("the document was fetched for a stranger")
		}
		b := p.visitor("")
		sentToSignIn(t, b.authorize(named(goodID, uri)))
		page := b.resumes("john")
		asked(t, page)
		if p.dir.fetches != 1 {
			t.Errorf("%d fetches", p.dir.fetches)
		}
		if c := p.granted(b.decide(page, "allow").code(t)); c.JKT != otherKey {
			t.Errorf("bound to %q", c.JKT)
		}
		bad := p.push(asks(goodID, "redirect_uri", "https://evil.test/cb"))
		p.dir.cold[goodID] = false
		bad.refused(t, 400, oauth.InvalidRequest) // the document is known by now
	})
	t.Run("PAR-11, PAR-09 a redirect URI that could not be checked yet is not followed later", func(t *testing.T) {
		p, _ := openPAR(t)
		p.dir.cold[goodID] = true
		uri := p.push(asks(goodID, "redirect_uri", "https://evil.test/cb")).uri()
		if res := p.visitor("john").authorize(named(goodID, uri)); res.StatusCode != http.StatusBadRequest || res.Header.Get("Location") != "" {
			t.Errorf("%d to %q", res.StatusCode, res.Header.Get("Location"))
		}
	})
	t.Run("PAR-11, PAR-03 what needs no document is checked at once", func(t *testing.T) {
		p, _ := openPAR(t)
		p.dir.cold[goodID] = true
		p.push(asks(goodID, "code_challenge_method", "plain")).refused(t, 400, oauth.InvalidRequest)
		p.push(asks(goodID, "response_type", "token")).refused(t, 400, oauth.UnsupportedResponseType)
		p.push(carries("hello", "client_id", goodID)).refused(t, 400, oauth.InvalidRequestObject)
	})
	t.Run("PAR-11, PAR-01 a client with keys cannot leave its proof out by being new here", func(t *testing.T) {
		p, _ := openPAR(t)
		p.dir.cold[keyedID] = true
		uri := p.push(asks(keyedID)).uri()
		res := p.visitor("john").authorize(named(keyedID, uri))
		if res.transaction() != "" || !strings.Contains(res.body, "pushed without client authentication") {
			t.Errorf("%d %s", res.StatusCode, res.body)
		}
	})
	t.Run("PAR-11, PAR-10 a signed request of a new client is checked later", func(t *testing.T) {
		p, _ := openPAR(t)
		s := p.signer("ES256")
		p.dir.put(keyedID, func(d *cimd.Document) { d.AuthMethods = []string{"none"} })
		p.dir.cold[keyedID] = true
		uri := p.push(carries(s.sign(nil)), "DPoP", otherKey).uri()
		asked(t, p.visitor("john").authorize(named(keyedID, uri)))
		p.dir.cold[keyedID] = true
		forged := p.push(carries(s.sign(map[string]any{"aud": "https://evil.test"}))).uri()
		if res := p.visitor("john").authorize(named(keyedID, forged)); res.transaction() != "" || !strings.Contains(res.body, "invalid_request_object") {
			t.Errorf("%d %s", res.StatusCode, res.body)
		}
		p.dir.cold[keyedID] = true
		p.push(carries(s.sign(map[string]any{"dpop_jkt": challenge})), "DPoP", otherKey).refused(t, 400, oauth.InvalidDPoPProof)
	})
	t.Run("PAR-11 where documents may be fetched at once they are", func(t *testing.T) {
		p, _ := openPAR(t, func(c *Config) { c.FetchBeforeSignIn = true })
		p.dir.cold[goodID] = true
		p.push(asks(goodID)).uri()
		if p.dir.fetches != 1 {
			t.Errorf("%d fetches", p.dir.fetches)
		}
	})
	t.Run("PAR-11, POL-08 so many a minute from one network, and a client that proves itself is not held back by them", func(t *testing.T) {
		p, _ := openPAR(t)
		for range perNetwork {
			p.push(asks(keyedID)).refused(t, 401, oauth.InvalidClient)
		}
		r := p.push(asks(goodID))
		r.refused(t, http.StatusTooManyRequests, oauth.TemporarilyUnavailable)
		if n, err := strconv.Atoi(r.Header().Get("Retry-After")); err != nil || n < 1 || n > 60 {
			t.Errorf("Retry-After %q", r.Header().Get("Retry-After"))
		}
		p.clock.pass(time.Minute)
		for range perNetwork + 1 {
			p.push(asks(keyedID, "client_secret", "right", "scope", "nope")).refused(t, 400, oauth.InvalidScope)
		}
		p.push(asks(goodID)).uri()
	})
	t.Run("PAR-11 so many a minute in the name of one client", func(t *testing.T) {
		p, _ := openPAR(t)
		p.h.throttle.Take(p.clock.Now(), web.Limit{Key: "par client " + goodID, Most: perClient})
		for range perClient - 1 {
			p.h.throttle.Take(p.clock.Now(), web.Limit{Key: "par client " + goodID, Most: perClient})
		}
		p.push(asks(goodID)).refused(t, http.StatusTooManyRequests, oauth.TemporarilyUnavailable)
		p.push(asks(nativeID)).uri()
	})
	t.Run("PAR-11, attack DS-13: so many wait at a time", func(t *testing.T) {
		p, _ := openPAR(t)
		p.h.Store = crowded{p.h.Store, p.store, mostUnproven}
		r := p.push(asks(goodID))
		r.refused(t, http.StatusServiceUnavailable, oauth.TemporarilyUnavailable)
		if r.Header().Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
		p.push(asks(keyedID, "client_secret", "right")).uri()
	})
}

func TestFAPI(t *testing.T) {
	p, _ := openPAR(t, func(c *Config) { c.CodeLife = 5 * time.Minute })
	p.rule(policy.Rule{Name: "banks", Host: "*.example.com", Action: policy.Allow, FAPI: true})
	form := asks(keyedID, "client_secret", "right")
	t.Run("POL-09 a code lives for a minute at most", func(t *testing.T) {
		b := p.visitor("john")
		c := p.granted(b.consents(named(keyedID, p.push(form).uri())))
		if life := c.Expires.Sub(p.clock.Now()); life != time.Minute {
			t.Errorf("it lives for %v", life)
		}
	})
	t.Run("POL-09, PAR-05 a pushed request waits for less than ten minutes, and others as long as the configuration says", func(t *testing.T) {
		p, _ := openPAR(t, func(c *Config) { c.PushLife = 10 * time.Minute })
		if life := p.push(form).body["expires_in"]; life != 600.0 {
			t.Errorf("without the profile: %v", life)
		}
		p.rule(policy.Rule{Name: "banks", Host: "*.example.com", Action: policy.Allow, FAPI: true})
		r := p.push(form)
		if life, _ := r.body["expires_in"].(float64); life <= 0 || life >= 600 {
			t.Errorf("under the profile: %v", life)
		}
		p.clock.pass(10*time.Minute - time.Second)
		if res := p.visitor("john").authorize(named(keyedID, r.uri())); !strings.Contains(res.body, "PAR-05") {
			t.Errorf("it still waits: %d %s", res.StatusCode, res.body)
		}
	})
	t.Run("POL-09 every refusal names the rule", func(t *testing.T) {
		for name, v := range map[string]reply{
			"public": p.push(asks(goodID)), "loopback": p.push(asks(keyedID, "client_secret", "right", "redirect_uri", "http://127.0.0.1:9/cb")),
		} {
			if hint, _ := v.body["error_description"].(string); v.Code != 400 || !strings.Contains(hint, "banks") || !strings.Contains(hint, "FAPI 2.0") {
				t.Errorf("%s: %d %s", name, v.Code, v.Body)
			}
		}
		if res := p.visitor("john").authorize(asks(keyedID)); !strings.Contains(res.body, "banks") {
			t.Errorf("not pushed: %d %s", res.StatusCode, res.body)
		}
	})
}

// readings is an issuer of hints: the user and the client, apart.
type readings map[string]keyring.Hint

func (r readings) VerifyHint(token string) (keyring.Hint, error) {
	if h, ok := r[token]; ok {
		return h, nil
	}
	return keyring.Hint{}, errors.New("not ours")
}

func TestIDTokenHint(t *testing.T) {
	key, err := jose.Generate(jose.ES256)
	if err != nil {
		t.Fatal(err)
	}
	tokens := map[string]string{}
	for _, name := range []string{"of-john", "of-jane", "elsewhere", "unknown"} {
		if tokens[name], err = key.Sign("JWT", map[string]string{"name": name}); err != nil {
			t.Fatal(err)
		}
	}
	p := open(t, func(c *Config) {
		c.Hints = readings{tokens["of-john"]: {Subject: "john", ClientID: goodID}, tokens["of-jane"]: {Subject: "jane", ClientID: goodID},
			tokens["elsewhere"]: {Subject: "jane", ClientID: nativeID}}
	})
	t.Run("AUTHZ-23, attack AZ-15: what is no ID token of anybody is refused", func(t *testing.T) {
		b := p.visitor("john")
		b.consents(asks(goodID))
		for _, hint := range []string{"a.b.c", "john", "eyJhbGciOiJub25lIn0.e30."} {
			if got := b.authorize(asks(goodID, "id_token_hint", hint)).location(t).Get("error"); got != "invalid_request" {
				t.Errorf("%s: error %q", hint, got)
			}
		}
	})
	t.Run("AUTHZ-23 it names who is signed in", func(t *testing.T) {
		asked(t, p.visitor("john").authorize(asks(goodID, "id_token_hint", tokens["of-john"])))
	})
	t.Run("AUTHZ-23 it names somebody else, who then signs in", func(t *testing.T) {
		b := p.visitor("john")
		p.clock.pass(time.Second)
		sentToSignIn(t, b.authorize(asks(goodID, "id_token_hint", tokens["of-jane"])))
		if p.login.last.Reason != login.ReasonSwitch {
			t.Errorf("the sign-in page is told %q", p.login.last.Reason)
		}
		page := b.resumes("jane")
		asked(t, page)
		if c := p.granted(b.decide(page, "allow").code(t)); c.Grant.UserID != "jane" {
			t.Errorf("the code is of %s", c.Grant.UserID)
		}
	})
	t.Run("AUTHZ-23 it names somebody else, and the same person comes back", func(t *testing.T) {
		b := p.visitor("john")
		b.consents(asks(goodID))
		p.clock.pass(time.Second)
		sentToSignIn(t, b.authorize(asks(goodID, "id_token_hint", tokens["of-jane"])))
		p.clock.pass(time.Second)
		if got := b.resumes("john").location(t).Get("error"); got != "login_required" {
			t.Errorf("error %q", got)
		}
	})
	t.Run("AUTHZ-23 it names somebody else, and nobody is to be asked", func(t *testing.T) {
		b := p.visitor("john")
		b.consents(asks(goodID))
		if got := b.authorize(asks(goodID, "id_token_hint", tokens["of-jane"], "prompt", "none")).location(t).Get("error"); got != "login_required" {
			t.Errorf("error %q", got)
		}
	})
	for _, hint := range []string{"elsewhere", "unknown"} {
		t.Run("AUTHZ-23, attack AZ-15: a hint that is not ours for this client stops nobody and vouches for nobody: "+hint, func(t *testing.T) {
			b := p.visitor("john")
			b.consents(asks(goodID, "id_token_hint", tokens[hint]))
			if got := b.authorize(asks(goodID, "id_token_hint", tokens[hint], "prompt", "none")).location(t).Get("error"); got != "login_required" {
				t.Errorf("error %q", got)
			}
		})
	}
	t.Run("AUTHZ-23 the page is answered by somebody else", func(t *testing.T) {
		b := p.visitor("john")
		b.consents(asks(goodID))
		page := b.authorize(asks(goodID, "id_token_hint", tokens["of-john"]))
		asked(t, page)
		b.signIn("jane") // in another tab
		if got := b.decide(page, "allow"); got.StatusCode == http.StatusSeeOther && got.location(t).Get("code") != "" {
			t.Error("a code")
		}
	})
}

func TestDetailsAreNeverSilent(t *testing.T) {
	p := open(t)
	const one = `[{"type":"repository","repository":"acme/site","actions":["read"]}]`
	t.Run("AUTHZ-26 they are shown in words and kept with the grant", func(t *testing.T) {
		b := p.signedIn("john")
		page := b.authorize(asks(goodID, "authorization_details", one))
		asked(t, page)
		for _, want := range []string{"work in one repository", "Stays inside of it.", "Repository", "acme/site", "It may", "read issues"} {
			if !strings.Contains(page.body, want) {
				t.Errorf("the page does not say %q", want)
			}
		}
		c := p.granted(b.decide(page, "allow").code(t))
		if c.Grant.Details != `[{"actions":["read"],"repository":"acme/site","type":"repository"}]` {
			t.Errorf("granted %s", c.Grant.Details)
		}
	})
	t.Run("AUTHZ-26 they are asked for each time, and answer for nothing later", func(t *testing.T) {
		b := p.signedIn("john")
		b.consents(asks(goodID, "authorization_details", one))
		asked(t, b.authorize(asks(goodID, "authorization_details", one)))
		asked(t, b.authorize(asks(goodID)))
		b.consents(asks(goodID))
		asked(t, b.authorize(asks(goodID, "authorization_details", one)))
		b.authorize(asks(goodID)).code(t)
		if got := b.authorize(asks(goodID, "authorization_details", one, "prompt", "none")).location(t).Get("error"); got != "consent_required" {
			t.Errorf("error %q", got)
		}
	})
	t.Run("AUTHZ-26 other details than the page said are asked for again", func(t *testing.T) {
		a, other := goodAttempt(t), goodAttempt(t)
		a.req.Details, other.req.Details = one, strings.Replace(one, "site", "shop", 1)
		if a.check() != nil || other.check() != nil || a.shown() == other.shown() {
			t.Error("the two look alike")
		}
	})
}

func TestClientsInDevelopment(t *testing.T) {
	t.Run("CONS-12 a client in development is marked, asked for each time, and vouched for by nobody", func(t *testing.T) {
		p := open(t)
		p.rule(policy.Rule{Name: "sandbox", Host: "*.example.com", Action: policy.Allow, Development: true})
		for range 2 {
			b := p.signedIn("john")
			page := b.authorize(asks(keyedID))
			asked(t, page)
			if !strings.Contains(page.body, "In development") || !strings.Contains(page.body, "This app is in development.") || strings.Contains(page.body, "Identity checked at its own address") {
				t.Error(page.body)
			}
			b.decide(page, "allow").code(t)
		}
		if vouched(&directory.Client{Source: directory.SourceCIMD, Decision: policy.Decision{Explicit: true, Development: true}}) {
			t.Error("CONS-08 the rule vouches for it")
		}
	})
}

func TestPushingToAStoreThatFails(t *testing.T) {
	p, _ := openPAR(t)
	s := p.signer("ES256")
	uri := p.push(asks(goodID)).uri()
	signed := func(jti string) url.Values {
		return carries(s.sign(map[string]any{"jti": jti}), "client_secret", "right")
	}
	p.h.Store = diskless{p.h.Store}
	t.Run("URL-15 a store that does not answer is no refusal", func(t *testing.T) {
		p.push(asks(goodID)).refused(t, 500, oauth.ServerError)
		p.push(signed("one")).refused(t, 500, oauth.ServerError)
		if res := p.visitor("john").authorize(named(goodID, uri)); res.StatusCode != 500 {
			t.Errorf("%d", res.StatusCode)
		}
	})
}

// diskless is a store whose disk is gone, for what is pushed.
type diskless struct{ Store }

var errDisk = errors.New("the disk is gone")

func (diskless) PushRequest(context.Context, store.Pushed, int, ...audit.Event) error { return errDisk }
func (diskless) FindPushed(context.Context, store.Hash, time.Time) (store.Pushed, error) {
	return store.Pushed{}, errDisk
}
func (diskless) SpendID(context.Context, string, store.Hash, time.Time, time.Time) error {
	return errDisk
}

// crowded is a store where requests wait already.
type crowded struct {
	Store
	real *store.Store
	wait int // so many wait
}

func (c crowded) PushRequest(ctx context.Context, p store.Pushed, most int, events ...audit.Event) error {
	if most <= c.wait {
		return store.ErrBusy
	}
	return c.real.PushRequest(ctx, p, most, events...)
}
