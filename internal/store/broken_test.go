package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
)

// verb is one call that succeeds on a store in good order.
type verb struct {
	name string
	call func(ctx context.Context, s *Store) error
}

// verbs are all verbs, in an order in which each of them succeeds.
func verbs() []verb {
	const id = "https://fetched.example/client.json"
	ev := audit.Event{Type: audit.TypeLogin}
	later := noon.Add(time.Minute)
	answer := func(name, digest string) Answer {
		return Answer{Nonce: HashOf("page" + name), Session: HashOf("session"), NonceExpires: later, Remember: true, Events: []audit.Event{ev},
			Client: &Client{ID: id, Source: SourceCIMD}, Document: &Document{ClientID: id, Digest: digest, Body: []byte("{}")},
			Grant: Grant{ID: "grant" + name, UserID: "u1", ClientID: id}, Code: Code{Hash: HashOf("c" + name), Expires: later}}
	}
	return append(protocolVerbs(), []verb{
		{"AnswerConsent", func(ctx context.Context, s *Store) error { return s.AnswerConsent(ctx, answer("1", "d1"), noon) }},
		{"AnswerConsent again", func(ctx context.Context, s *Store) error { return s.AnswerConsent(ctx, answer("2", "d2"), noon) }},
		{"AnswerConsent without a client", func(ctx context.Context, s *Store) error {
			a := answer("3", "d2")
			a.Client = nil
			return s.AnswerConsent(ctx, a, noon)
		}},
		{"AnswerConsent of a registered client", func(ctx context.Context, s *Store) error {
			a := answer("4", "")
			a.Client, a.Document, a.Grant.ClientID = nil, nil, benchClient
			return s.AnswerConsent(ctx, a, noon)
		}},
		{"DenyConsent", func(ctx context.Context, s *Store) error { return s.DenyConsent(ctx, HashOf("page"), later, noon, ev) }},
		{"Consent", func(ctx context.Context, s *Store) error { _, err := s.Consent(ctx, "u1", id, ""); return err }},
		{"FindCode", func(ctx context.Context, s *Store) error { _, err := s.FindCode(ctx, HashOf("c1"), noon); return err }},
		{"RedeemCode", func(ctx context.Context, s *Store) error {
			_, err := s.RedeemCode(ctx, Redemption{Hash: HashOf("c1"), Refresh: &NewRefresh{Hash: HashOf("g/1"), Absolute: later}, Events: []audit.Event{ev}}, noon)
			return err
		}},
		{"RedeemCode for no refresh token", func(ctx context.Context, s *Store) error {
			_, err := s.RedeemCode(ctx, Redemption{Hash: HashOf("c2")}, noon)
			return err
		}},
		{"FindRefresh", func(ctx context.Context, s *Store) error {
			_, _, err := s.FindRefresh(ctx, refOf("f", 1), noon)
			return err
		}},
		{"RotateRefresh", func(ctx context.Context, s *Store) error {
			return s.RotateRefresh(ctx, Rotation{Old: refOf("f", 1), New: tokenOf("f", 2), Events: []audit.Event{ev}}, noon)
		}},
		{"GrantActive", func(ctx context.Context, s *Store) error { _, err := s.GrantActive(ctx, "grant4"); return err }},
		{"Grants", func(ctx context.Context, s *Store) error { _, err := s.Grants(ctx, "u1", "", 0); return err }},
		{"SetClientState pending", func(ctx context.Context, s *Store) error { return s.SetClientState(ctx, id, StatePending, "", noon) }},
		{"SetClientState allowed", func(ctx context.Context, s *Store) error { return s.SetClientState(ctx, id, StateAllowed, "", noon) }},
		{"RevokeGrant", func(ctx context.Context, s *Store) error { return s.RevokeGrant(ctx, "grant4", "x", noon, ev) }},
		{"RevokeGrant again", func(ctx context.Context, s *Store) error { return s.RevokeGrant(ctx, "grant4", "x", noon, ev) }},
		{"RevokeUserClient", func(ctx context.Context, s *Store) error { return s.RevokeUserClient(ctx, "u1", id, noon, ev) }},
		{"SetClientState blocked", func(ctx context.Context, s *Store) error { return s.SetClientState(ctx, id, StateBlocked, "", noon) }},
		{"SetClientState of a stranger", func(ctx context.Context, s *Store) error {
			return s.SetClientState(ctx, id+"2", StateBlocked, "", noon)
		}},
		{"DenyToken", func(ctx context.Context, s *Store) error { return s.DenyToken(ctx, "j", later, ev) }},
		{"TokenDenied", func(ctx context.Context, s *Store) error { _, err := s.TokenDenied(ctx, "j"); return err }},
		{"SpendID", func(ctx context.Context, s *Store) error { return s.SpendID(ctx, "i", HashOf("j"), later, noon) }},
		{"AddSigningKey", func(ctx context.Context, s *Store) error {
			return s.AddSigningKey(ctx, SigningKey{KID: "k", Wrapped: []byte{1}}, "")
		}},
		{"SigningKeys", func(ctx context.Context, s *Store) error { _, err := s.SigningKeys(ctx); return err }},
		{"WithdrawSigningKey", func(ctx context.Context, s *Store) error { return s.WithdrawSigningKey(ctx, "k", noon) }},
		{"RetireSigningKey", func(ctx context.Context, s *Store) error { return s.RetireSigningKey(ctx, "k", noon) }},
		{"Client", func(ctx context.Context, s *Store) error { _, err := s.Client(ctx, benchClient); return err }},
		{"Clients", func(ctx context.Context, s *Store) error { _, err := s.Clients(ctx, "", 0); return err }},
		{"RegisterClient", func(ctx context.Context, s *Store) error { return s.RegisterClient(ctx, Client{ID: "new"}, noon) }},
		{"Document", func(ctx context.Context, s *Store) error { _, err := s.Document(ctx, id); return err }},
		{"Documents", func(ctx context.Context, s *Store) error {
			docs, err := s.Documents(ctx, id, 0)
			if err == nil && (len(docs) != 2 || docs[0].Version != 2) {
				err = fmt.Errorf("%d documents", len(docs))
			}
			return err
		}},
		{"SaveCache", func(ctx context.Context, s *Store) error { return s.SaveCache(ctx, "k", benchClient, []byte("x")) }},
		{"LoadCache", func(ctx context.Context, s *Store) error { _, _, err := s.LoadCache(ctx, "k"); return err }},
		{"AddUser", func(ctx context.Context, s *Store) error {
			return s.AddUser(ctx, User{ID: "u2", Name: "Mary", Disabled: true})
		}},
		{"Users", func(ctx context.Context, s *Store) error { _, err := s.Users(ctx, "", 0); return err }},
		{"UserByID", func(ctx context.Context, s *Store) error { _, err := s.UserByID(ctx, "u1"); return err }},
		{"UserByName", func(ctx context.Context, s *Store) error { _, err := s.UserByName(ctx, "john"); return err }},
		{"EnableUser", func(ctx context.Context, s *Store) error { return s.EnableUser(ctx, "u1", noon) }},
		{"StartSession", func(ctx context.Context, s *Store) error {
			return s.StartSession(ctx, Session{Hash: HashOf("s2"), UserID: "u1", Expires: later})
		}},
		{"FindSession", func(ctx context.Context, s *Store) error {
			_, _, err := s.FindSession(ctx, HashOf("session"), noon)
			return err
		}},
		{"SeeSession", func(ctx context.Context, s *Store) error { return s.SeeSession(ctx, HashOf("session"), noon, later) }},
		{"EndSession", func(ctx context.Context, s *Store) error { return s.EndSession(ctx, HashOf("session")) }},
		{"SetPassword", func(ctx context.Context, s *Store) error { return s.SetPassword(ctx, "u1", "x", noon) }},
		{"DisableUser", func(ctx context.Context, s *Store) error { return s.DisableUser(ctx, "u1", noon) }},
		{"PublishPolicy", func(ctx context.Context, s *Store) error {
			_, err := s.PublishPolicy(ctx, Policy{Body: []byte("a"), Digest: "a"}, noon, ev)
			return err
		}},
		{"OfferPolicy", func(ctx context.Context, s *Store) error {
			_, err := s.OfferPolicy(ctx, Policy{Body: []byte("b"), Digest: "b"}, noon, ev)
			return err
		}},
		{"NewestPolicy", func(ctx context.Context, s *Store) error { _, err := s.NewestPolicy(ctx); return err }},
		{"AppendEvents", func(ctx context.Context, s *Store) error { return s.AppendEvents(ctx, ev) }},
		{"Events", func(ctx context.Context, s *Store) error { _, err := s.Events(ctx, EventQuery{}); return err }},
		{"VerifyEvents", func(ctx context.Context, s *Store) error { _, _, err := s.VerifyEvents(ctx); return err }},
		{"ForgetEvents", func(ctx context.Context, s *Store) error { _, err := s.ForgetEvents(ctx, later, noon); return err }},
		{"Prune", func(ctx context.Context, s *Store) error { _, err := s.Prune(ctx, noon); return err }},
	}...)
}

func TestBrokenDatabase(t *testing.T) {
	t.Run("every verb succeeds on a store in good order", func(t *testing.T) {
		s := open(t)
		seed(t, s)
		family(t, s, "f")
		for _, v := range verbs() {
			if err := v.call(t.Context(), s); err != nil {
				t.Errorf("%s: %v", v.name, err)
			}
		}
	})
	t.Run("after Close every verb says so", func(t *testing.T) {
		s := open(t)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		for _, v := range verbs() {
			if err := v.call(t.Context(), s); !errors.Is(err, ErrClosed) {
				t.Errorf("%s: %v", v.name, err)
			}
		}
	})
	t.Run("a caller that has gone is told the reason", func(t *testing.T) {
		s := open(t)
		for _, v := range verbs() {
			if err := v.call(canceled(), s); !errors.Is(err, context.Canceled) {
				t.Errorf("%s: %v", v.name, err)
			}
		}
	})
	t.Run("URL-15, mistake 35: whichever statement fails, nothing is called unknown or spent, and nothing stands", func(t *testing.T) {
		runs := queriesOf(t)
		s := open(t)
		seed(t, s)
		family(t, s, "f")
		failed := 0
		for _, v := range verbs() {
			for _, q := range runs[v.name] {
				mend := breakQuery(t, s, q)
				err := v.call(t.Context(), s)
				mend()
				if err == nil || isFact(err) {
					t.Fatalf("%s, when this fails: %s\n%v", v.name, q, err)
				}
				failed++
			}
			if err := v.call(t.Context(), s); err != nil { // nothing of it stood, so that it can be done now
				t.Errorf("%s, when all works again: %v", v.name, err)
			}
		}
		if failed < 200 {
			t.Errorf("only %d statements failed", failed)
		}
	})
	t.Run("URL-15, mistake 35: without a table nothing is called unknown or spent", func(t *testing.T) {
		s := open(t)
		db := raw(t, s.path(t))
		db.SetMaxOpenConns(1)
		for _, q := range []string{"PRAGMA foreign_keys = OFF", "PRAGMA legacy_alter_table = ON", "PRAGMA synchronous = OFF"} {
			if _, err := db.Exec(q); err != nil {
				t.Fatal(err)
			}
		}
		left := []string{"users", "codes", "device_codes"} // on PostgreSQL, where it takes no time, each of them
		withoutTables(t, s, func(query string) error { _, err := db.Exec(query); return err }, func(table string) bool {
			i := slices.Index(left, table)
			if i >= 0 {
				left = slices.Delete(left, i, i+1)
			}
			return i >= 0
		})
		if len(left) > 0 {
			t.Errorf("no verb needs %v", left)
		}
	})
}

// tables are all that there are.
var tables = []string{"users", "sessions", "clients", "documents", "cache", "consents", "consent_nonces",
	"grants", "codes", "refresh_tokens", "spent_ids", "denied_tokens", "signing_keys", "audit", "revisions", "policies",
	"pushed_requests", "device_codes", "identities"}

func isFact(err error) bool {
	return slices.ContainsFunc([]error{ErrNotFound, ErrSpent, ErrExpired, ErrConflict, ErrEnded, ErrBlocked, ErrBusy, ErrTooFast},
		func(fact error) bool { return errors.Is(err, fact) })
}

// queriesOf returns the statements that each verb runs when it succeeds.
func queriesOf(t *testing.T) map[string][]string {
	t.Helper()
	if known != nil {
		return known
	}
	s := open(t)
	seed(t, s)
	family(t, s, "f")
	out := map[string][]string{}
	defer func() { known = out }()
	for _, v := range verbs() {
		s.stmts.close()
		s.stmts.m.Clear()
		if err := s.write(t.Context(), func(tx *tx) error {
			for q, stmt := range tx.stmts {
				_ = stmt.Close()
				delete(tx.stmts, q)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if err := v.call(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", v.name, err)
		}
		add := func(q string) {
			if word, _, _ := strings.Cut(q, " "); slices.Contains([]string{"SELECT", "INSERT", "UPDATE", "DELETE"}, word) {
				out[v.name] = append(out[v.name], q)
			}
		}
		s.stmts.m.Range(func(q, _ any) bool { add(q.(string)); return true })
		if err := s.write(t.Context(), func(tx *tx) error {
			for q := range tx.stmts {
				add(q)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if len(out[v.name]) == 0 {
			t.Fatalf("%s runs no statement", v.name)
		}
	}
	return out
}

var known map[string][]string // what queriesOf found; the tests run one after the other

// breakQuery lets a statement fail until mend is called.
func breakQuery(t *testing.T, s *Store, query string) (mend func()) {
	t.Helper()
	broken, err := s.reads.Prepare("SELECT 1")
	if err := errors.Join(err, broken.Close()); err != nil {
		t.Fatal(err)
	}
	read, _ := s.stmts.m.Swap(query, broken)
	var written *sql.Stmt
	swap := func(to **sql.Stmt) {
		if err := s.write(t.Context(), func(tx *tx) error {
			was := tx.stmts[query]
			if delete(tx.stmts, query); *to != nil {
				tx.stmts[query] = *to
			}
			*to = was
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	written = broken
	swap(&written)
	return func() {
		if s.stmts.m.Delete(query); read != nil {
			s.stmts.m.Store(query, read)
		}
		swap(&written)
	}
}

// withoutTables takes each table that a verb needs away before the verb, if
// chosen says so: whatever the verb then says, it is not a fact about what it was
// asked for, and nothing of it stands.
func withoutTables(t *testing.T, s *Store, exec func(query string) error, chosen func(table string) bool) {
	t.Helper()
	runs := queriesOf(t)
	seed(t, s)
	family(t, s, "f")
	for _, v := range verbs() {
		done := false
		for _, table := range tables {
			needs := slices.ContainsFunc(runs[v.name], func(q string) bool { return slices.Contains(strings.FieldsFunc(q, notInName), table) })
			if done || !needs || !chosen(table) {
				continue
			}
			if err := exec("ALTER TABLE " + table + " RENAME TO gone"); err != nil {
				t.Fatal(err)
			}
			err := v.call(t.Context(), s)
			if isFact(err) {
				t.Errorf("%s, without %s: %v", v.name, table, err)
			}
			if err == nil {
				t.Errorf("%s succeeded without %s", v.name, table)
				done = true
			}
			if err := exec("ALTER TABLE gone RENAME TO " + table); err != nil {
				t.Fatal(err)
			}
		}
		if !done {
			if err := v.call(t.Context(), s); err != nil {
				t.Errorf("%s, when all tables are back: %v", v.name, err)
			}
		}
	}
}

func notInName(r rune) bool { return r != '_' && (r < 'a' || r > 'z') }
