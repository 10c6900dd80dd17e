package token

import (
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/oauth"
)

func TestRefreshTokens(t *testing.T) {
	noon := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	grant := store.NewID(noon)
	first, kept := FirstRefresh(grant, noon.Add(time.Hour), noon.Add(2*time.Hour))
	ref := refreshRef(first)
	t.Run("TOK-12 a token says where it stands and hides what the family shares", func(t *testing.T) {
		if ref.GrantID != grant || ref.Generation != 1 || ref.Hash != store.HashOf(first) || ref.Family == (store.Hash{}) {
			t.Errorf("%+v", ref)
		}
		if kept.Hash != ref.Hash || kept.Family != ref.Family || kept.Expires != noon.Add(time.Hour) || kept.Absolute != noon.Add(2*time.Hour) {
			t.Errorf("%+v", kept)
		}
		other, _ := FirstRefresh(grant, noon, noon)
		if o := refreshRef(other); o.Family == ref.Family || o.Hash == ref.Hash {
			t.Error("two families share something")
		}
	})
	t.Run("TOK-12 its successor is of the same family and has nothing else of it", func(t *testing.T) {
		next := successor(first, ref)
		n := refreshRef(next)
		if n.GrantID != grant || n.Generation != 2 || n.Family != ref.Family || n.Hash == ref.Hash {
			t.Errorf("%+v", n)
		}
		a, b := splitRefresh(first), splitRefresh(next)
		if string(a[ownAt:grantAt]) == string(b[ownAt:grantAt]) || successor(first, ref) == next {
			t.Error("the secret part repeats")
		}
	})
	t.Run("TOK-12 the successor of a token from before begins a family", func(t *testing.T) {
		was := store.RefreshRef{GrantID: grant, Generation: 7}
		a, b := refreshRef(successor(oauth.RandomToken(32), was)), refreshRef(successor(oauth.RandomToken(32), was))
		if a.GrantID != grant || a.Generation != 8 || a.Family == b.Family {
			t.Errorf("%+v and %+v", a, b)
		}
	})
	t.Run("no other text says anything", func(t *testing.T) {
		raw := splitRefresh(first)
		spoilt := func(grant string) string {
			return base64.RawURLEncoding.EncodeToString(append(raw[:grantAt:grantAt], grant...))
		}
		for name, text := range map[string]string{
			"nothing": "", "a token from before": oauth.RandomToken(32), "no grant": spoilt(""), "a long grant": spoilt(strings.Repeat("0", grantMost+1)),
			"NUL": spoilt("a\x00b"), "half a letter": spoilt("a\xff"), "a capital": spoilt("A0"), "a quote": spoilt("a'"), "a letter beyond ASCII": spoilt("aé"),
			"padding": first + "=", "a line break": first[:20] + "\n" + first[20:], "another alphabet": strings.Repeat("+", len(first)),
			"loose bits": loose(spoilt("abc")),
		} {
			if got := refreshRef(text); got != (store.RefreshRef{Hash: store.HashOf(text)}) {
				t.Errorf("%s: %+v", name, got)
			}
		}
		if got := refreshRef(spoilt(strings.Repeat("z", grantMost))); got.GrantID == "" {
			t.Error("the longest grant is not read")
		}
	})
}

// loose changes bits of the last letter that stand for nothing.
func loose(token string) string {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := strings.IndexByte(letters, token[len(token)-1])
	return token[:len(token)-1] + letters[last^1:last^1+1]
}

// FuzzRefreshRef: what a text says of itself, it says in one way only.
func FuzzRefreshRef(f *testing.F) {
	first, _ := FirstRefresh("06dpkv1d3ck8h0l2mk4n5o6p7q", time.Time{}, time.Time{})
	f.Add(first)
	f.Add(oauth.RandomToken(32))
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		ref := refreshRef(text)
		if ref.Hash != store.HashOf(text) {
			t.Fatal("another hash")
		}
		raw := splitRefresh(text)
		if (raw == nil) != (ref.GrantID == "") {
			t.Fatalf("%x says %+v", raw, ref)
		}
		if raw != nil && (base64.RawURLEncoding.EncodeToString(raw) != text || ref.GrantID != string(raw[grantAt:]) || strings.ContainsFunc(ref.GrantID, notInID)) {
			t.Fatalf("%q says %+v", text, ref)
		}
	})
}
