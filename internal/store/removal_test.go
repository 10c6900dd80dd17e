package store

import (
	"encoding/hex"
	"errors"
	"testing"

	"github.com/bonafide-id/bonafide/internal/audit"
)

// TestARemovalThatNoEventExplains: who writes to the database removes the oldest
// events as ForgetEvents does, with the true hash of the newest of them, but for
// the event that says so.
func TestARemovalThatNoEventExplains(t *testing.T) {
	for _, row := range []struct {
		name string
		says func(hash Hash) *audit.Event
		want [2]int64 // intact, broken
	}{
		{"POL-07, AD-09 no event says so", func(Hash) *audit.Event { return nil }, [2]int64{0, 3}},
		{"POL-07, AD-09 one that tells of another removal", func(hash Hash) *audit.Event { return said("1", hash) }, [2]int64{0, 3}},
		{"POL-07, AD-09 one that tells of other events", func(Hash) *audit.Event { return said("2", HashOf("another")) }, [2]int64{0, 3}},
		{"POL-07, AD-09 one that is no word of the store", func(hash Hash) *audit.Event { e := said("2", hash); e.Type = audit.TypeConfig; return e }, [2]int64{0, 3}},
		{"POL-07, AD-09 one that says so", func(hash Hash) *audit.Event { return said("2", hash) }, [2]int64{4, 0}},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := open(t)
			for range 5 {
				if err := s.AppendEvents(t.Context(), audit.Event{Type: audit.TypeLogin}); err != nil {
					t.Fatal(err)
				}
			}
			var hash Hash
			if err := s.get(t.Context(), []any{&hash}, `SELECT hash FROM audit WHERE seq = 2`); err != nil {
				t.Fatal(err)
			}
			var err error
			if e := row.says(hash); e != nil {
				err = s.AppendEvents(t.Context(), *e)
			}
			if err := errors.Join(err, s.write(t.Context(), func(tx *tx) error {
				_, err := tx.exec(`INSERT INTO audit_checkpoint (one, seq, hash) VALUES (1, 2, $1)`, hash)
				if err == nil {
					_, err = tx.exec(`DELETE FROM audit WHERE seq <= 2`)
				}
				return err
			})); err != nil {
				t.Fatal(err)
			}
			if intact, broken, err := s.VerifyEvents(t.Context()); err != nil || [2]int64{intact, broken} != row.want {
				t.Errorf("%d intact, %d broken, %v; want %v", intact, broken, err, row.want)
			}
		})
	}
}

// said is the store's word on a removal.
func said(through string, hash Hash) *audit.Event {
	return &audit.Event{Type: audit.TypeRetention, Code: "removed", Data: map[string]string{"through": through, "hash": hex.EncodeToString(hash[:]), "events": "2"}}
}
