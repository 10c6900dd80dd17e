package store

import (
	"fmt"
	"testing"
	"time"
)

// An account can sign in as often as it likes, and silently give grants: its
// provider's logout token is no slower for that. PostgreSQL numbers the statements
// of a transaction, and says of each row by which it was written.
func TestFarewellIsShort(t *testing.T) {
	t.Run("OIDC-10, attack DS-13: a farewell ends any number of grants in one statement", func(t *testing.T) {
		const sessions, each = 5, 8
		address := database(t)
		s := openAt(t, address)
		seed(t, s)
		if err := s.LinkIdentity(t.Context(), Identity{Issuer: "https://idp.example", Subject: "john", UserID: "u1"}, nil); err != nil {
			t.Fatal(err)
		}
		for i := range sessions {
			hash := HashOf(fmt.Sprint("session ", i))
			if err := s.StartSession(t.Context(), Session{Hash: hash, UserID: "u1", Expires: noon.Add(time.Hour)}); err != nil {
				t.Fatal(err)
			}
			for j := range each {
				name := fmt.Sprint(i, "/", j)
				a := Answer{Nonce: HashOf("page " + name), Session: hash, NonceExpires: noon.Add(time.Minute),
					Grant: Grant{ID: "g" + name, UserID: "u1", ClientID: benchClient}, Code: Code{Hash: HashOf("code " + name), Expires: noon.Add(time.Minute)}}
				if err := s.AnswerConsent(t.Context(), a, noon); err != nil {
					t.Fatal(err)
				}
			}
		}
		out, err := s.SignOutIdentity(t.Context(), Farewell{Issuer: "https://idp.example", Subject: "john", Reason: "x", Spend: SpentID{Issuer: "x", Expires: noon}}, noon)
		if err != nil || len(out.SIDs) != sessions+1 || len(out.Grants) != sessions {
			t.Errorf("%d sessions, %d grants, %v", len(out.SIDs), len(out.Grants), err)
		}
		var ended, statements int
		err = rawPG(t, address).QueryRow(t.Context(), `SELECT COUNT(*), COUNT(DISTINCT cmin::text) FROM grants WHERE ended_at IS NOT NULL`).Scan(&ended, &statements)
		if err != nil || ended != sessions*each || statements != 1 {
			t.Errorf("%d grants ended in %d statements, %v", ended, statements, err)
		}
	})
}
