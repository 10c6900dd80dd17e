package housetest

import (
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/oauth"
)

// TestPollsReadWhatIsKept changes the document of a client while its device waits,
// and after the yes. The document was read when the device asked, and again when
// the person looked: nobody who polls makes this server read it.
func TestPollsReadWhatIsKept(t *testing.T) {
	t.Parallel()
	for _, uncached := range [][]string{nil, {"Cache-Control", "no-cache"}} {
		for name, happens := range map[string]func(h *House){
			"its host is down": func(h *House) { h.Net.Host("tv.test").Down(true) },
			"it is gone":       func(h *House) { h.Net.Host("tv.test").Remove("/c.json") },
			"it says something else": func(h *House) {
				doc := tvDocument()
				doc["grant_types"], doc["scope"] = []string{oauth.GrantDeviceCode}, "mcp:write"
				h.Net.Host("tv.test").ServeClient("/c.json", doc, uncached...)
			},
		} {
			t.Run("TOK-06, FETCH-21, DEV-04, mistake 28: "+name, func(t *testing.T) {
				h := televised(t)
				h.Net.Host("tv.test").ServeClient("/c.json", tvDocument(), uncached...)
				john, waits, agreed := h.john(), h.started(), h.started()
				john.connect(john.enter(agreed.Str("user_code")), "allow")
				happens(h)
				h.Later(2 * time.Minute) // what is cached for the shortest time is old by now
				before := h.fetches()
				h.poll(waits).check(t, 400, oauth.AuthorizationPending)
				a := h.poll(agreed)
				if !a.OK() || a.Str("scope") != "mcp:read" || a.Str("refresh_token") == "" {
					t.Errorf("%v: %d %s", uncached, a.Status, a.Raw)
				}
				if n := h.fetches() - before; n != 0 {
					t.Errorf("%v: %d connections", uncached, n)
				}
			})
		}
	}
	t.Run("DEV-01, FETCH-21 a client to which nobody has agreed yet is read again where nothing may be kept of it", func(t *testing.T) {
		h := televised(t)
		h.Net.Host("tv.test").ServeClient("/c.json", tvDocument(), "Cache-Control", "no-cache")
		a := h.started()
		before := h.fetches()
		for range 10 {
			h.poll(a).check(t, 400, oauth.AuthorizationPending)
		}
		if n := h.fetches() - before; n != 0 {
			t.Errorf("%d connections in a minute", n)
		}
		h.Later(2 * time.Minute)
		h.poll(a).check(t, 400, oauth.AuthorizationPending)
		john := h.john()
		john.connect(john.enter(a.Str("user_code")), "allow")
		h.Net.Host("tv.test").Down(true)
		h.Later(2 * time.Minute)
		if b := h.poll(a); !b.OK() {
			t.Errorf("%d %s", b.Status, b.Raw)
		}
	})
	t.Run("DOC-18, DEV-06 a device waits with the method that its document has by now", func(t *testing.T) {
		h := televised(t)
		john := h.john()
		h.connected(t, john) // the document is kept, with none
		key := newKey(t, jose.ES256)
		doc := tvDocument()
		doc["token_endpoint_auth_method"], doc["jwks"] = "private_key_jwt", keySet(t, key)
		h.Net.Host("tv.test").ServeClient("/c.json", doc)
		h.Later(2 * time.Hour)
		k := &keyed{h: h, id: tvID, keys: []jose.Private{key}}
		proven := func() []string { return with(k.assert(nil)) }
		a := h.started(proven()...)
		h.poll(a, proven()...).check(t, 400, oauth.AuthorizationPending)
		john = h.john()
		john.connect(john.enter(a.Str("user_code")), "allow")
		h.poll(a).check(t, 401, oauth.InvalidClient)
		if b := h.poll(a, proven()...); !b.OK() {
			t.Errorf("%d %s", b.Status, b.Raw)
		}
	})
}
