package keyring

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/google/go-cmp/cmp"
)

func TestLogoutTokens(t *testing.T) {
	c := newClock()
	r := mustNew(t, config(openStore(t, c), c))
	good := LogoutToken{Subject: "user-1", ClientID: "https://good.test/client.json", SID: "s1", JTI: "j1", Issued: c.now(), Expires: c.now().Add(2 * time.Minute)}
	t.Run("OIDC-09 a logout token says which session ended, and is of a type of its own", func(t *testing.T) {
		token, err := r.MintLogout(good)
		if err != nil {
			t.Fatal(err)
		}
		header, claims := open(t, r, token)
		now := float64(c.now().Unix())
		want := map[string]any{
			"iss": issuer, "sub": "user-1", "aud": "https://good.test/client.json", "iat": now, "exp": now + 120, "jti": "j1", "sid": "s1",
			"events": map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}},
		}
		if diff := cmp.Diff(want, claims); diff != "" || header.Typ != "logout+jwt" {
			t.Errorf("%s (-want +got):\n%s", header.Typ, diff)
		}
	})
	for name, spoil := range map[string]func(*LogoutToken){
		"for nobody": func(l *LogoutToken) { l.ClientID = "" }, "without a jti": func(l *LogoutToken) { l.JTI = "" },
		"about nobody": func(l *LogoutToken) { l.Subject, l.SID = "", "" }, "that never ends": func(l *LogoutToken) { l.Expires = l.Issued.Add(48 * time.Hour) },
		"that has ended": func(l *LogoutToken) { l.Expires = l.Issued },
	} {
		t.Run("OIDC-09 not minted: one "+name, func(t *testing.T) {
			l := good
			spoil(&l)
			if _, err := r.MintLogout(l); err == nil {
				t.Fatal("minted")
			}
		})
	}
}

func TestHints(t *testing.T) {
	c := newClock()
	r := mustNew(t, config(openStore(t, c), c))
	claims := func(changes ...string) map[string]any {
		m := map[string]any{"iss": issuer, "sub": "user-1", "aud": "https://good.test/client.json", "sid": "s1", "exp": c.now().Unix() - 86400}
		for i := 0; i+1 < len(changes); i += 2 {
			m[changes[i]] = changes[i+1]
		}
		return m
	}
	sign := func(k jose.Private, typ string, claims map[string]any) string {
		t.Helper()
		token, err := k.Sign(typ, claims)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	ours := r.signer().private
	t.Run("OIDC-08 an ID token of ours, although it has expired", func(t *testing.T) {
		h, err := r.VerifyHint(sign(ours, "JWT", claims()))
		if want := (Hint{"user-1", "https://good.test/client.json", "s1"}); err != nil || h != want {
			t.Errorf("%+v, %v", h, err)
		}
	})
	foreign, err := jose.Generate(jose.ES256)
	if err != nil {
		t.Fatal(err)
	}
	good, forged := sign(ours, "JWT", claims()), sign(ours, "JWT", claims("sub", "user-2"))
	for name, token := range map[string]string{
		"an access token of ours":       sign(ours, "at+jwt", claims()),
		"a logout token of ours":        sign(ours, "logout+jwt", claims()),
		"without a type":                sign(ours, "", claims()),
		"of another issuer":             sign(ours, "JWT", claims("iss", "https://other.test")),
		"for nobody":                    sign(ours, "JWT", claims("aud", "")),
		"about nobody":                  sign(ours, "JWT", claims("sub", "")),
		"with a key of somebody else":   sign(foreign, "JWT", claims()),
		"with the signature of another": forged[:strings.LastIndexByte(forged, '.')] + good[strings.LastIndexByte(good, '.'):],
		"no token":                      "x",
		"nothing":                       "",
	} {
		t.Run("OIDC-04, OIDC-08 no hint: "+name, func(t *testing.T) {
			if h, err := r.VerifyHint(token); !errors.Is(err, ErrNoHint) || h != (Hint{}) {
				t.Errorf("%+v, %v", h, err)
			}
		})
	}
}
