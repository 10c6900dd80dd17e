package authorize

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/cimd"
	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/internal/policy"
	"github.com/bonafide-id/bonafide/internal/web"
	"github.com/bonafide-id/bonafide/oauth"
)

// The sign-in page has what was brought along in its address, sealed: everybody
// can have any code sealed so, as often as they like.
func TestACodeThatWasOnlyBroughtAlongIsNoGuess(t *testing.T) {
	p := openDevices(t)
	c := &counted{Store: p.store}
	p.h.device.Devices = c
	p.wait(typed)
	john := p.signedIn("john")
	token := entryField.FindStringSubmatch(john.get("/device").body)[1]
	session := john.cookies["__Host-bonafide_session"]
	for name, carry := range map[string]func() answered{
		"in the address": func() answered { return john.get("/device?user_code=" + typed) },
		"in the form": func() answered {
			return john.do(http.MethodPost, "/device", url.Values{"form": {token}, "user_code": {typed}})
		},
	} {
		t.Run("attack DV-03: a code carried through the sign-in "+name+" cannot be tried at the next page", func(t *testing.T) {
			delete(john.cookies, "__Host-bonafide_session")
			carry()
			john.cookies["__Host-bonafide_session"] = session
			a := john.get("/device/confirm?tx=" + url.QueryEscape(p.login.last.Sealed))
			a.says(t, 403, "no longer valid")
			if c.looked != 0 {
				t.Errorf("%d codes were looked up and none was counted", c.looked)
			}
		})
	}
}

func TestWhatIsCountedTakesNoRoom(t *testing.T) {
	t.Run("attack DP-08, PAR-11 a long client_id is counted in as little room as a short one", func(t *testing.T) {
		p, _ := openPAR(t)
		long := "https://long.example.com/" + strings.Repeat("a", 50_000)
		p.push(asks(long))
		for id, want := range map[string]int{long: 1, long[:len(long)-1]: 0} { // the type of the memory says how much is kept
			if n := p.h.throttle.Count(p.clock.Now(), "par client "+id); n != want {
				t.Errorf("%d bytes: %d are counted", len(id), n)
			}
		}
	})
}

// Anybody can put a document with keys somewhere: that a client proves to be the
// one it says is no reason to leave it all the room.
func TestAStrangerWithKeysHasBounds(t *testing.T) {
	proven := func() url.Values { return asks(keyedID, "client_secret", "right") }
	fill := func(p *place, of string) {
		for range perStranger {
			p.h.throttle.Take(p.clock.Now(), web.Limit{Key: of, Most: perStranger})
		}
	}
	for _, of := range []string{"par proven 203.0.113.9", "par proven keyed.example.com"} {
		t.Run("attack CA-07, DS-13: PAR-11 a client with keys that no operator named has bounds: "+of, func(t *testing.T) {
			p, _ := openPAR(t)
			p.push(proven()).uri()
			fill(p, of)
			p.push(proven()).refused(t, http.StatusTooManyRequests, oauth.TemporarilyUnavailable)
			for range perNetwork {
				p.push(proven())
			}
			if n := p.h.throttle.Count(p.clock.Now(), "par 203.0.113.9"); n != perNetwork {
				t.Errorf("it is still authenticated each time, which leaves a trace each time: %d", n)
			}
		})
		t.Run("PAR-11 and one that an operator named has none: "+of, func(t *testing.T) {
			p, _ := openPAR(t)
			p.rule(policy.Rule{Name: "partner", Client: keyedID, Action: policy.Allow})
			fill(p, of)
			p.push(proven()).uri()
		})
	}
	t.Run("PAR-11, attack DS-13: they leave room for those whom an operator named", func(t *testing.T) {
		p, _ := openPAR(t)
		p.h.Store = crowded{p.h.Store, p.store, mostStrangers}
		p.push(proven()).refused(t, http.StatusServiceUnavailable, oauth.TemporarilyUnavailable)
		p.rule(policy.Rule{Name: "partner", Client: keyedID, Action: policy.Allow})
		p.push(proven()).uri()
	})
}

func TestGoodPushesWithoutProofCount(t *testing.T) {
	t.Run("PAR-11, POL-08 what a client without proof pushed well counts, too", func(t *testing.T) {
		p, _ := openPAR(t)
		for range perNetwork {
			p.push(asks(goodID)).uri()
		}
		p.push(asks(goodID)).refused(t, http.StatusTooManyRequests, oauth.TemporarilyUnavailable)
	})
}

func TestFAPILeavesNoUnprovenPush(t *testing.T) {
	t.Run("POL-09, PAR-01 what was pushed while nobody knew the client was not pushed as FAPI 2.0 wants it", func(t *testing.T) {
		p, _ := openPAR(t)
		p.rule(policy.Rule{Name: "bank", Client: keyedID, Action: policy.Allow, FAPI: true})
		p.dir.put(keyedID, func(d *cimd.Document) { d.AuthMethods = []string{oauth.MethodPrivateKeyJWT, oauth.MethodNone} })
		p.dir.cold = map[string]bool{keyedID: true}
		uri := p.push(asks(keyedID)).uri()
		a := p.signedIn("john").authorize(named(keyedID, uri))
		a.says(t, 400, "without client authentication")
	})
}

func TestASignedRequestEndsWithItsTrace(t *testing.T) {
	t.Run("attack AZ-15: a request object cannot be kept open until nobody knows any more that it was answered", func(t *testing.T) {
		p := open(t)
		b := p.visitor("john")
		object := p.signer(jose.ES256).sign(map[string]any{"jti": "once"})
		page := b.authorize(carries(object))
		for i := 0; i < 5 && page.StatusCode == 200; i++ {
			p.clock.pass(25 * time.Minute)
			b.decide(page, "switch")
			b.signIn("john")
			page = b.get("/authorize/resume?tx=" + url.QueryEscape(p.login.last.Sealed))
		}
		page.says(t, 400, "could not be checked")
	})
}

func TestPushersHearHTTP(t *testing.T) {
	t.Run("PAR-01, TOK-19 a failed attempt in the Authorization header is answered with the challenge of HTTP", func(t *testing.T) {
		p, _ := openPAR(t)
		v := asks(goodID, "client_secret", "wrong")
		a := p.push(v, "Authorization", "Basic "+"eDp5")
		a.refused(t, 401, oauth.InvalidClient)
		if a.Header().Get("WWW-Authenticate") == "" {
			t.Error("no challenge")
		}
	})
}
