package token

import (
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/cimd"
	"github.com/bonafide-id/bonafide/internal/clientauth"
	"github.com/bonafide-id/bonafide/internal/directory"
	"github.com/bonafide-id/bonafide/internal/keyring"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/oauth"
)

// TestTies: what a refresh token that began without a key belongs to from now on.
func TestTies(t *testing.T) {
	for _, row := range []struct {
		name          string
		method        string
		grant         store.Grant
		jkt, instance string
		wantJKT       string
		wantInstance  string
	}{
		{"DPOP-02 a public client with a proof", oauth.MethodNone, store.Grant{}, "key", "", "key", ""},
		{"DPOP-02 a client that authenticates renews its keys", oauth.MethodPrivateKeyJWT, store.Grant{}, "key", "", "", ""},
		{"DPOP-02 a grant that has a key", oauth.MethodNone, store.Grant{JKT: "first"}, "key", "", "", ""},
		{"ATT-08 an attested installation", oauth.MethodAttestation, store.Grant{}, "", "instance", "", "instance"},
		{"ATT-08 a grant that has one", oauth.MethodAttestation, store.Grant{InstanceJKT: "first"}, "", "instance", "", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			is := &issue{client: &clientauth.Client{Method: row.method, InstanceJKT: row.instance}, grant: row.grant, jkt: row.jkt}
			if jkt, instance := is.ties(); jkt != row.wantJKT || instance != row.wantInstance {
				t.Errorf("%q, %q", jkt, instance)
			}
		})
	}
	t.Run("ATT-08 an attested installation may take up a grant of none", func(t *testing.T) {
		is := &issue{client: &clientauth.Client{Method: oauth.MethodAttestation, InstanceJKT: "instance"}}
		if err := is.holds(store.Grant{}); err != nil {
			t.Error(err)
		}
	})
}

// TestOneBinding: a certificate and a proof on one request.
func TestOneBinding(t *testing.T) {
	for _, row := range []struct {
		name, jkt string
		doc       *cimd.Document
		want      string
	}{
		{"DPOP-07 a certificate alone", "", &cimd.Document{}, "cert"},
		{"DPOP-07, POL-09: the key of a proof is enough", "key", &cimd.Document{}, ""},
		{"DPOP-07, POL-09: also for a client without a document", "key", nil, ""},
		{"DPOP-07 a document that asks for the certificate gets both", "key", &cimd.Document{MTLSBound: true}, "cert"},
	} {
		t.Run(row.name, func(t *testing.T) {
			is := &issue{client: &clientauth.Client{Client: &directory.Client{Doc: row.doc}, CertThumbprint: "cert"}, jkt: row.jkt}
			if got := is.certificate(); got != row.want {
				t.Errorf("%q, not %q", got, row.want)
			}
		})
	}
}

func TestIntrospectionOfTwoBindings(t *testing.T) {
	h := newHouse(t)
	c := h.consent(t, public)
	h.ok(t, c.form())
	token, err := h.cfg.Keys.MintAccess(keyring.AccessToken{Subject: "user-1", ClientID: public, Audience: mcp, GrantID: c.grantID, JTI: oauth.RandomToken(8),
		Scopes: oauth.Scopes{"read"}, Issued: h.clock.now(), Expires: h.clock.now().Add(time.Minute), CnfJKT: "key", CnfX5T: "cert"})
	if err != nil {
		t.Fatal(err)
	}
	t.Run("INT-03, DPOP-07 a token that is bound to a key and to a certificate says both", func(t *testing.T) {
		st := h.introspect1(t, token)
		if cnf, _ := st.json["cnf"].(map[string]any); cnf["jkt"] != "key" || cnf["x5t#S256"] != "cert" || len(cnf) != 2 {
			t.Errorf("%s", st.body)
		}
	})
}

// TestAddressOfAnAssertion: it may become the name of an account.
func TestAddressOfAnAssertion(t *testing.T) {
	for email, want := range map[string]string{
		"ada@example.test": "ada@example.test", "": "", "ada": "", "@example.test": "", "ada@": "", "@": "", "ada lovelace@example.test": "", "ada@example.test\t": "", " ada@example.test": "",
	} {
		t.Run("XCH-10 the address "+email, func(t *testing.T) {
			var a idJAG
			a.Email = email
			if got := a.address(); got != want {
				t.Errorf("%q, not %q", got, want)
			}
		})
	}
}
