package authorize

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/cimd"
	"github.com/bonafide-id/bonafide/internal/store"
)

// TestClocksAndEndings: whether a connection was ended before or after a page was
// shown is known whatever the clocks of the replicas say that took part.
func TestClocksAndEndings(t *testing.T) {
	end := map[string]func(p *place) error{
		"the connection": func(p *place) error {
			return p.store.RevokeUserClient(t.Context(), "john", tvID, p.clock.Now())
		},
		"all connections": func(p *place) error {
			_, err := p.store.EndGrantsOf(t.Context(), store.Whose{UserID: "john"}, "ended by the person", p.clock.Now())
			return err
		},
		"the client, which is then allowed again": func(p *place) error {
			return errors.Join(p.store.SetClientState(t.Context(), tvID, store.StateBlocked, "", p.clock.Now()),
				p.store.SetClientState(t.Context(), tvID, store.StateAllowed, "", p.clock.Now()))
		},
	}
	const apart = 90 * time.Second
	pages := map[string]func(p *place, b *person, code string) (answer func() bool){
		"consent page": func(p *place, b *person, _ string) func() bool {
			page := b.authorize(asks(tvID, "redirect_uri", "https://tv.example.com/cb", "scope", "issues:read issues:write"))
			return func() bool { return strings.Contains(b.decide(page, "allow").Header.Get("Location"), "code=") }
		},
		"device page": func(p *place, b *person, code string) func() bool {
			p.wait(code)
			page := b.enter(code)
			return func() bool { return strings.Contains(b.confirm(page).body, "Connected") }
		},
	}
	// known is a place with a client that somebody else has agreed to, and with
	// agreed also the person.
	known := func(t *testing.T, agreed bool) (*place, *person) {
		p := openDevices(t)
		p.dir.put(tvID, func(d *cimd.Document) {
			d.RedirectURIs, d.GrantTypes = []string{"https://tv.example.com/cb"}, append(d.GrantTypes, "authorization_code")
		})
		who := []string{"jane"}
		if agreed {
			who = append(who, "john")
		}
		for _, name := range who {
			p.signedIn(name).consents(asks(tvID, "redirect_uri", "https://tv.example.com/cb"))
		}
		return p, p.signedIn("john")
	}
	for what, ends := range end {
		for kind, shows := range pages {
			for name, agreed := range map[string]bool{"agreed to before": true, "new to the person": false} {
				t.Run("attack CN-18, attack FA-12: "+kind+", "+name+": of a replica whose clock is ahead, when somebody ends "+what, func(t *testing.T) {
					p, b := known(t, agreed)
					p.clock.pass(apart)
					answer := shows(p, b, typed)
					p.clock.pass(-apart)
					if err := ends(p); err != nil {
						t.Fatal(err)
					}
					p.clock.pass(apart)
					if answer() {
						t.Error("it was answered")
					}
				})
				t.Run("attack FA-12: "+kind+", "+name+": of a replica whose clock is behind, after somebody ended "+what, func(t *testing.T) {
					p, b := known(t, agreed)
					p.clock.pass(apart)
					if err := ends(p); err != nil {
						t.Fatal(err)
					}
					p.clock.pass(-apart)
					answer := shows(p, b, typed)
					if !answer() {
						t.Error("it could not be answered")
					}
				})
			}
		}
	}
}
