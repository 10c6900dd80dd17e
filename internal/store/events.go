package store

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
)

// head is the newest event as the transaction sees it. Another process may have
// written since the last transaction, so it is read once in each.
type head struct {
	known bool
	seq   int64
	hash  Hash
}

// entry is an event ready to be written: all that needs no sequence number is
// done before the writer has its turn.
type entry struct {
	audit.Event
	line []byte // without the sequence number
	data string
}

// entries cleans events and spells them out. An event without a time happened
// now.
func entries(now time.Time, events ...audit.Event) ([]entry, error) {
	out := make([]entry, len(events))
	for i, e := range events {
		if e.Time.IsZero() {
			e.Time = now
		}
		e = e.Clean()
		e.Seq = 0
		out[i] = entry{Event: e, line: e.Line()}
		if len(e.Data) > 0 {
			b, err := json.Marshal(e.Data)
			if err != nil {
				return nil, fmt.Errorf("write event: %w", err)
			}
			out[i].data = string(b)
		}
	}
	return out, nil
}

// chain returns the hash of an event that follows one with the hash before: that
// of the hash before it and its line, which begins with the sequence number.
func chain(before Hash, seq int64, line []byte) Hash {
	h := sha256.New()
	h.Write(before[:])
	h.Write(strconv.AppendInt([]byte(`{"seq":`), seq, 10))
	h.Write([]byte(","))
	h.Write(line[1:])
	var out Hash
	h.Sum(out[:0])
	return out
}

// record writes events in the transaction of what they record.
func (t *tx) record(now time.Time, events ...audit.Event) error {
	ready, err := entries(now, events...)
	if err != nil {
		return err
	}
	return t.keep(ready)
}

// keep writes events that were made ready.
func (t *tx) keep(events []entry) error {
	if len(events) == 0 {
		return nil
	}
	if !t.head.known {
		t.head = head{known: true}
		err := t.get([]any{&t.head.seq, &t.head.hash}, `SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1`)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
	}
	for i := range events {
		e := &events[i]
		seq := t.head.seq + 1
		hash := chain(t.head.hash, seq, e.line)
		if t.postgres && t.apart == 0 {
			t.pending = append(t.pending, row{e, seq, hash})
		} else if _, err := t.exec(`INSERT INTO audit (`+eventColumns+`, hash) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)`,
			seq, micros(e.Time), string(e.Type), e.Ref, e.Client, e.User, e.Grant, e.Resource, e.IP, e.Rule, e.Code, e.data, hash); err != nil {
			return fmt.Errorf("write event: %w", err)
		}
		t.head.seq, t.head.hash = seq, hash
		if err := t.touch(topics[e.Type]); err != nil {
			return err
		}
	}
	return nil
}

// row is an event with its place in the chain.
type row struct {
	*entry
	seq  int64
	hash Hash
}

// flush writes the events that wait for the end of the transaction, all in one
// way to the server and back.
func (t *tx) flush() error {
	n := len(t.pending)
	if n == 0 {
		return nil
	}
	seqs, times, hashes := make([]int64, n), make([]int64, n), make([][]byte, n)
	var texts [10][]string
	for i := range texts {
		texts[i] = make([]string, n)
	}
	for i, e := range t.pending {
		seqs[i], times[i], hashes[i] = e.seq, micros(e.Time), e.hash[:]
		for j, s := range [...]string{string(e.Type), e.Ref, e.Client, e.User, e.Grant, e.Resource, e.IP, e.Rule, e.Code, e.data} {
			texts[j][i] = s
		}
	}
	args := []any{seqs, times}
	for _, column := range texts {
		args = append(args, column)
	}
	_, err := t.exec(`INSERT INTO audit (`+eventColumns+`, hash) SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[],
		$5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[], $11::text[], $12::text[], $13::bytea[])`, append(args, hashes)...)
	if err != nil && !transient(err) && !t.lost() {
		return errors.Join(errApart, err)
	}
	return err
}

const eventColumns = `seq, at, type, ref, client_id, user_id, grant_id, resource, ip, rule, code, data`

func scanEvent(scan func(...any) error, more ...any) (audit.Event, error) {
	var e audit.Event
	var data string
	err := scan(append([]any{&e.Seq, instant{&e.Time}, &e.Type, &e.Ref, &e.Client, &e.User, &e.Grant, &e.Resource, &e.IP, &e.Rule, &e.Code, &data}, more...)...)
	if err == nil && data != "" {
		err = json.Unmarshal([]byte(data), &e.Data)
	}
	return e, err
}

// AppendEvents writes events, all of them or none. Events that belong to a
// change go with that change instead.
func (s *Store) AppendEvents(ctx context.Context, events ...audit.Event) error {
	if len(events) == 0 {
		return nil
	}
	ready, err := entries(s.now(), events...)
	if err != nil {
		return wrap("append events", err)
	}
	return wrap("append events", s.write(ctx, func(t *tx) error { return t.keep(ready) }))
}

// Events returns events in the order in which they were written.
func (s *Store) Events(ctx context.Context, q EventQuery) ([]audit.Event, error) {
	query := `SELECT ` + eventColumns + ` FROM audit WHERE seq > $1 `
	args := []any{q.After, bound(q.Limit, 100, 1000)}
	switch {
	case q.Type != "" && q.Ref != "":
		query += `AND type = $3 AND ref = $4 `
		args = append(args, string(q.Type), q.Ref)
	case q.Type != "":
		query += `AND type = $3 `
		args = append(args, string(q.Type))
	case q.Ref != "":
		query += `AND ref = $3 `
		args = append(args, q.Ref)
	}
	var out []audit.Event
	err := s.list(ctx, func(scan func(...any) error) error {
		e, err := scanEvent(scan)
		out = append(out, e)
		return err
	}, query+`ORDER BY seq LIMIT $2`, args...)
	return out, wrap("list events", err)
}

// VerifyEvents reads the whole audit and checks that each event follows the one
// before it, the first one that which was removed last for its age. It returns
// how many do; when broken is not 0, it is the sequence number of the first event
// that was altered, comes after a gap or does not know of a removal. An audit
// that lost its newest events looks whole: keep the last number elsewhere to
// notice.
func (s *Store) VerifyEvents(ctx context.Context) (intact, broken int64, err error) {
	for {
		began, err := s.checkpoint(ctx)
		if err != nil {
			return 0, 0, wrap("verify events", err)
		}
		if intact, broken, err = s.verifyFrom(ctx, began); err != nil || broken == 0 {
			return intact, broken, wrap("verify events", err)
		}
		if ended, err := s.checkpoint(ctx); err != nil || ended == began {
			return intact, broken, wrap("verify events", err)
		}
		// Events were removed while they were read.
	}
}

// verifyFrom is VerifyEvents for what follows a checkpoint.
func (s *Store) verifyFrom(ctx context.Context, began head) (intact, broken int64, err error) {
	at, explained := began, began.seq == 0
	for {
		n := 0
		err = s.list(ctx, func(scan func(...any) error) error {
			var kept Hash
			e, err := scanEvent(scan, &kept)
			if err != nil {
				return err
			}
			n++
			seq := e.Seq
			e.Seq = 0
			if broken == 0 && (seq != at.seq+1 || chain(at.hash, seq, e.Line()) != kept) {
				broken = seq
			}
			if through, ok := removal(e); ok && through.seq == began.seq && through.hash == began.hash {
				explained = true
			}
			at.seq, at.hash = seq, kept
			if broken == 0 {
				intact++
			}
			return nil
		}, `SELECT `+eventColumns+`, hash FROM audit WHERE seq > $1 ORDER BY seq LIMIT 1000`, at.seq)
		switch {
		case err != nil || broken != 0:
			return intact, broken, err
		case n > 0:
		case !explained:
			return 0, began.seq + 1, nil
		default:
			return intact, 0, nil
		}
	}
}
