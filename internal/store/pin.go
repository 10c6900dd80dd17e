package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
)

// PinClient holds a fetched client to this document, which becomes its newest
// stored version: until UnpinClient, an answer that rests on another document is
// refused with ErrConflict. A client that nobody has used gets its row. A
// registered client has no document, and ErrConflict is returned.
func (s *Store) PinClient(ctx context.Context, c Client, d Document, now time.Time) error {
	if c.ID == "" || c.ID != d.ClientID {
		return errors.New("pin client: the document must be the client's own")
	}
	c.Source, c.Version = SourceCIMD, 0
	return wrap("pin client", s.write(ctx, func(t *tx) error {
		if _, err := t.insertClient(c, now); err != nil {
			return err
		}
		var source string
		if err := t.get([]any{&source}, `SELECT source FROM clients WHERE client_id = $1`, c.ID); err != nil {
			return err
		}
		if source != SourceCIMD {
			return ErrConflict
		}
		version, err := t.keepDocument(d)
		if err != nil {
			return err
		}
		if _, err := t.exec(`UPDATE clients SET pinned_version = $2 WHERE client_id = $1`, c.ID, version); err != nil {
			return err
		}
		return t.record(now, audit.Event{Type: audit.TypeClient, Client: c.ID, Code: "pinned",
			Data: map[string]string{"version": fmt.Sprint(version), "digest": d.Digest}})
	}))
}

// UnpinClient lets a client follow its document again. ErrNotFound means that it
// was not pinned.
func (s *Store) UnpinClient(ctx context.Context, id string, now time.Time) error {
	return wrap("unpin client", s.write(ctx, func(t *tx) error {
		n, err := t.exec(`UPDATE clients SET pinned_version = 0 WHERE client_id = $1 AND pinned_version > 0`, id)
		if err == nil && n == 0 {
			err = ErrNotFound
		}
		if err != nil {
			return err
		}
		return t.record(now, audit.Event{Type: audit.TypeClient, Client: id, Code: "unpinned"})
	}))
}

// pinned refuses a document other than the one that the client is held to.
func (t *tx) pinned(d *Document) error {
	if d == nil {
		return nil
	}
	var digest string
	err := t.get([]any{&digest}, `SELECT d.digest FROM clients c JOIN documents d ON d.client_id = c.client_id AND d.version = c.pinned_version
		WHERE c.client_id = $1`, d.ClientID)
	switch {
	case errors.Is(err, ErrNotFound):
		return nil
	case err == nil && digest != d.Digest:
		return ErrConflict
	}
	return err
}
