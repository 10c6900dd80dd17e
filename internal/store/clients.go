package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
)

const clientColumns = `client_id, source, state, reason, name, secret_hash, redirect_uris, grant_types, auth_methods,
	scope, has_scope, jwks, jwks_uri, version, created_at, last_used_at, pinned_version,
	expires_at, registration_hash, metadata, post_logout_redirect_uris, backchannel_logout_uri`

func (c *Client) columns() []any {
	return []any{&c.ID, &c.Source, &c.State, &c.Reason, &c.Name, &c.SecretHash, jsonList{&c.RedirectURIs}, words{&c.GrantTypes}, words{&c.AuthMethods},
		&c.Scope, &c.HasScope, &c.JWKS, &c.JWKSURI, &c.Version, instant{&c.Created}, instant{&c.LastUsed}, &c.Pinned,
		instant{&c.Expires}, &c.RegistrationHash, &c.Metadata, jsonList{&c.PostLogoutRedirectURIs}, &c.BackchannelLogoutURI}
}

// jsonList reads a list of strings of any content.
type jsonList struct{ list *[]string }

// Scan implements sql.Scanner.
func (j jsonList) Scan(v any) error {
	s, ok := v.(string)
	if !ok {
		return fmt.Errorf("a list is kept as text, not as %T", v)
	}
	*j.list = nil
	return json.Unmarshal([]byte(s), j.list)
}

// Client returns the row of a client in any state. The identifier is compared
// byte for byte. ErrNotFound means that there is certainly none; any other error
// does not (URL-15).
func (s *Store) Client(ctx context.Context, id string) (Client, error) {
	var c Client
	if err := s.get(ctx, c.columns(), `SELECT `+clientColumns+` FROM clients WHERE client_id = $1`, id); err != nil {
		return Client{}, wrap("find client", err)
	}
	return c, nil
}

// ClientStanding returns what decides whether a client gets anything, and nothing
// else of its row: ID, Source, State, Version and Pinned. It is asked on every
// request. Errors are those of Client.
func (s *Store) ClientStanding(ctx context.Context, id string) (Client, error) {
	c := Client{ID: id}
	err := s.get(ctx, []any{&c.Source, &c.State, &c.Version, &c.Pinned},
		`SELECT source, state, version, pinned_version FROM clients WHERE client_id = $1`, id)
	if err != nil {
		return Client{}, wrap("find client", err)
	}
	return c, nil
}

// Clients returns clients in the order of their identifiers, starting behind
// after. The limit is 100 by default and 1000 at most.
func (s *Store) Clients(ctx context.Context, after string, limit int) ([]Client, error) {
	var out []Client
	err := s.list(ctx, func(scan func(...any) error) error {
		var c Client
		err := scan(c.columns()...)
		out = append(out, c)
		return err
	}, `SELECT `+clientColumns+` FROM clients WHERE client_id > $1 ORDER BY client_id LIMIT $2`, after, bound(limit, 100, 1000))
	return out, wrap("list clients", err)
}

// RegisterClient adds a client that an operator wrote down. ErrConflict means
// that a client with this identifier exists. An empty state is "allowed".
func (s *Store) RegisterClient(ctx context.Context, c Client, now time.Time) error {
	if c.ID == "" {
		return errors.New("register client: an identifier is required")
	}
	c.Source = SourceRegistered
	return wrap("register client", s.write(ctx, func(t *tx) error {
		n, err := t.insertClient(c, now)
		if err == nil && n == 0 {
			err = ErrConflict
		}
		if err != nil {
			return err
		}
		return t.record(now, audit.Event{Type: audit.TypeClient, Client: c.ID, Code: "registered"})
	}))
}

// insertClient adds a client unless there is one, and returns how many it added.
func (t *tx) insertClient(c Client, now time.Time) (int64, error) {
	if c.State == "" {
		c.State = StateAllowed
	}
	lists, err := join(c.GrantTypes, c.AuthMethods)
	if err != nil {
		return 0, err
	}
	return t.exec(`INSERT INTO clients (`+clientColumns+`)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, 0, $17, $18, $19, $20, $21) ON CONFLICT DO NOTHING`,
		c.ID, c.Source, c.State, c.Reason, c.Name, c.SecretHash, jsonText(c.RedirectURIs), lists[0], lists[1],
		c.Scope, c.HasScope, c.JWKS, c.JWKSURI, c.Version, micros(now), micros(now),
		micros(c.Expires), c.RegistrationHash, c.Metadata, jsonText(c.PostLogoutRedirectURIs), c.BackchannelLogoutURI)
}

func jsonText(list []string) string {
	if len(list) == 0 {
		return "[]"
	}
	b, _ := json.Marshal(list) // strings always marshal
	return string(b)
}

// SetClientState allows, holds, blocks or retires a client. Blocking and
// retiring end its grants, refresh families and remembered consents in the same
// commit (REV-06); a client that is held keeps its grants, but they give nothing
// until it is allowed. A client that nobody knows yet can be blocked, so that it
// never is; any other state needs a row, or ErrNotFound is returned.
func (s *Store) SetClientState(ctx context.Context, id, state, reason string, now time.Time) error {
	switch state {
	case StateAllowed, StatePending, StateBlocked, StateRetired:
	default:
		return fmt.Errorf("set client state: %q is not a state", state)
	}
	return wrap("set client state", s.write(ctx, func(t *tx) error {
		n, err := t.exec(`UPDATE clients SET state = $2, reason = $3 WHERE client_id = $1`, id, state, reason)
		if err == nil && n == 0 && state == StateBlocked && id != "" {
			n, err = t.insertClient(Client{ID: id, Source: SourceCIMD, State: state, Reason: reason}, now)
		}
		if err != nil {
			return err
		}
		if n == 0 {
			return ErrNotFound
		}
		data := map[string]string{"reason": reason}
		switch state {
		case StateBlocked, StateRetired:
			ended, err := t.endGrants(Whose{ClientID: id}, "client_"+state, now)
			if err != nil {
				return err
			}
			data["grants_ended"] = fmt.Sprint(ended)
		case StatePending:
			_, err = t.exec(`UPDATE grants SET held_at = $2 WHERE client_id = $1 AND ended_at IS NULL`, id, micros(now))
		case StateAllowed:
			_, err = t.exec(`UPDATE grants SET held_at = NULL WHERE client_id = $1 AND ended_at IS NULL`, id)
		}
		if err != nil {
			return err
		}
		return t.record(now, audit.Event{Type: audit.TypeClient, Client: id, Code: state, Data: data})
	}))
}

const documentColumns = `client_id, version, body, digest, security_digest, auth_methods, fetched_at`

func (d *Document) columns() []any {
	return []any{&d.ClientID, &d.Version, &d.Body, &d.Digest, &d.SecurityDigest, words{&d.AuthMethods}, instant{&d.FetchedAt}}
}

// Document returns the newest stored version of a client's document.
func (s *Store) Document(ctx context.Context, clientID string) (Document, error) {
	var d Document
	err := s.get(ctx, d.columns(), `SELECT `+documentColumns+` FROM documents WHERE client_id = $1 ORDER BY version DESC LIMIT 1`, clientID)
	if err != nil {
		return Document{}, wrap("find document", err)
	}
	return d, nil
}

// Documents returns the stored versions of a client's document, newest first,
// 20 by default and 200 at most.
func (s *Store) Documents(ctx context.Context, clientID string, limit int) ([]Document, error) {
	var out []Document
	err := s.list(ctx, func(scan func(...any) error) error {
		var d Document
		err := scan(d.columns()...)
		out = append(out, d)
		return err
	}, `SELECT `+documentColumns+` FROM documents WHERE client_id = $1 ORDER BY version DESC LIMIT $2`, clientID, bound(limit, 20, 200))
	return out, wrap("list documents", err)
}

// LoadCache returns what the document cache kept under key.
func (s *Store) LoadCache(ctx context.Context, key string) ([]byte, bool, error) {
	var entry []byte
	err := s.get(ctx, []any{&entry}, `SELECT entry FROM cache WHERE key = $1`, key)
	if errors.Is(err, ErrNotFound) {
		return nil, false, nil
	}
	return entry, err == nil, wrap("load cache", err)
}

// SaveCache keeps an entry of the document cache, but only for a client that has
// a row: strangers cannot fill the database.
func (s *Store) SaveCache(ctx context.Context, key, clientID string, entry []byte) error {
	return wrap("save cache", s.write(ctx, func(t *tx) error {
		_, err := t.exec(`INSERT INTO cache (key, client_id, entry, saved_at)
			SELECT $1, c.client_id, $3, $4 FROM clients c WHERE c.client_id = $2
			ON CONFLICT (key) DO UPDATE SET client_id = excluded.client_id, entry = excluded.entry, saved_at = excluded.saved_at`,
			key, clientID, entry, micros(s.now()))
		return err
	}))
}
