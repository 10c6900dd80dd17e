package client

import (
	"encoding/json"
	"errors"
	"net/http"
	"testing"

	"github.com/bonafide-id/bonafide/oauth"
)

func TestPublishedDocument(t *testing.T) {
	// published serves a document at the authorization server's host.
	published := func(t *testing.T, config func(*Config), change func(*Document)) (*world, error) {
		w := newWorld(t, config)
		w.c.cfg.ID = w.as.URL + "/client.json"
		d := w.c.Document("App")
		change(&d)
		keys, _ := PublicKeys(key(t, "ES256"))
		w.as.more = func(rw http.ResponseWriter, r *http.Request) bool {
			switch r.URL.Path {
			case "/client.json":
				_ = json.NewEncoder(rw).Encode(d)
			case "/jwks.json":
				_, _ = rw.Write(keys)
			default:
				return false
			}
			return true
		}
		return w, w.c.CheckPublished(t.Context())
	}
	k := key(t, "ES256")
	keyed := func(c *Config) { c.Key = k }
	other := key(t, "ES256")
	for _, tc := range []struct {
		name   string
		config func(*Config)
		change func(*Document)
		ok     bool
	}{
		{"CLI-28 what the client publishes fits it", nil, func(*Document) {}, true},
		{"CLI-28 with a key", keyed, func(*Document) {}, true},
		{"CLI-28 a document that lists more", keyed, func(d *Document) {
			d.RedirectURIs = append(d.RedirectURIs, "https://app.test/cb")
			d.AuthMethods = []string{"none", "private_key_jwt"}
		}, true},
		{"CLI-28 the defaults of a document", nil, func(d *Document) { d.GrantTypes, d.AuthMethod = nil, "" }, true},
		{"CLI-28 another client_id", nil, func(d *Document) { d.ClientID += "x" }, false},
		{"CLI-28 another redirect URI", nil, func(d *Document) { d.RedirectURIs = []string{"http://127.0.0.1/other"} }, false},
		{"CLI-28 another grant", nil, func(d *Document) { d.GrantTypes = []string{oauth.GrantDeviceCode} }, false},
		{"CLI-28 another method", keyed, func(d *Document) { d.AuthMethod = "none" }, false},
		{"CLI-28 another key", keyed, func(d *Document) { d.JWKS, _ = PublicKeys(other) }, false},
		{"CLI-28 another key at jwks_uri", keyed, func(d *Document) {
			d.JWKSURI, d.JWKS = d.ClientID[:len(d.ClientID)-len("client.json")]+"jwks.json", nil
		}, false},
		{"CLI-28 no key", keyed, func(d *Document) { d.JWKS = nil }, false},
		{"CLI-28 another algorithm", keyed, func(d *Document) { d.SigningAlg = "RS256" }, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w, err := published(t, tc.config, tc.change)
			if (err == nil) != tc.ok || !tc.ok && (!errors.Is(err, ErrDrift) || !w.failed("CLI-28")) {
				t.Error(err)
			}
		})
	}
	t.Run("CLI-28 a document that is not there says nothing about drift", func(t *testing.T) {
		w := newWorld(t, nil)
		w.c.cfg.ID = w.as.URL + "/none.json"
		if err := w.c.CheckPublished(t.Context()); err == nil || errors.Is(err, ErrDrift) {
			t.Error(err)
		}
	})
}
