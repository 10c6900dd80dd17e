package store

import (
	"path/filepath"
	"testing"
	"time"
)

var noon = time.Date(2026, 11, 21, 12, 0, 0, 123456789, time.UTC)

func open(t testing.TB) *Store {
	t.Helper()
	s, err := Open(t.Context(), Config{Path: filepath.Join(t.TempDir(), "bonafide.db"), Now: func() time.Time { return noon }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestSmoke(t *testing.T) {
	s := open(t)
	ctx := t.Context()
	if err := s.AddUser(ctx, User{ID: "u1", Name: "John", Created: noon}); err != nil {
		t.Fatal(err)
	}
	if err := s.StartSession(ctx, Session{Hash: HashOf("s"), UserID: "u1", AuthTime: noon, Created: noon, Expires: noon.Add(time.Hour), AMR: []string{"pwd"}}); err != nil {
		t.Fatal(err)
	}
	t.Log(s.FindSession(ctx, HashOf("s"), noon))
	const id = "https://mcpclient.example/oauth/metadata.json"
	a := Answer{Nonce: HashOf("n"), Session: HashOf("s"), NonceExpires: noon.Add(time.Minute), Asked: noon, Remember: true,
		Client:   &Client{ID: id, Source: SourceCIMD, RedirectURIs: []string{"http://localhost/cb"}, GrantTypes: []string{"authorization_code"}},
		Document: &Document{ClientID: id, Body: []byte("{}"), Digest: "d", SecurityDigest: "sd", FetchedAt: noon},
		Grant:    Grant{ID: NewID(noon), UserID: "u1", ClientID: id, Resource: "r", Scopes: []string{"a", "b"}, SecurityDigest: "sd", AuthTime: noon},
		Code:     Code{Hash: HashOf("code"), Expires: noon.Add(time.Minute), RedirectURI: "http://localhost:1/cb"},
	}
	if err := s.AnswerConsent(ctx, a, noon); err != nil {
		t.Fatal(err)
	}
	t.Log(s.FindCode(ctx, HashOf("code"), noon))
	g, err := s.RedeemCode(ctx, Redemption{Hash: HashOf("code"), Method: "none", Refresh: &NewRefresh{Hash: HashOf("r1"), Expires: noon.Add(time.Hour), Absolute: noon.Add(2 * time.Hour)}}, noon)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(g)
	if err := s.RotateRefresh(ctx, Rotation{Old: HashOf("r1"), New: NewRefresh{Hash: HashOf("r2"), Expires: noon.Add(time.Hour)}}, noon); err != nil {
		t.Fatal(err)
	}
	t.Log(s.FindRefresh(ctx, HashOf("r1"), noon))
	t.Log(s.Prune(ctx, noon.Add(1000*24*time.Hour)))
	t.Log(s.Events(ctx, EventQuery{}))
	t.Log(s.VerifyEvents(ctx))
}
