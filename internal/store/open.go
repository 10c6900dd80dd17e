package store

import (
	"context"
	"errors"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
)

// SpentID is the identifier of an assertion that is good for one grant only.
type SpentID struct {
	Issuer  string
	ID      Hash
	Expires time.Time
}

// Opening is a grant that needs no consent page: the client acts for itself, or
// an assertion or another token speaks for the person. How the client
// authenticated and its keys stand in Grant.
type Opening struct {
	Client   *Client   // as fetched; nil if the row exists. A registered or blocked row is never changed by it
	Document *Document // nil for a registered client
	Grant    Grant     // its Version is set here
	Spend    []SpentID // each can be spent once
	Refresh  *NewRefresh
	Events   []audit.Event
}

// OpenGrant spends the identifiers, keeps the client's row and document as
// AnswerConsent does, writes the grant with its first refresh token, if it gets
// one, and records the events, all in one commit or not at all. It returns the
// grant as it was written.
//
// ErrSpent: an identifier was spent before (XCH, CAUTH-06). ErrBlocked: the client
// is not allowed. ErrConflict: an operator registered the client meanwhile, or
// holds it to another document. ErrEnded: the user is disabled. ErrNotFound: there
// is no such user, or the client has no row and none was given.
func (s *Store) OpenGrant(ctx context.Context, o Opening, now time.Time) (Grant, error) {
	if o.Grant.ID == "" || o.Grant.ClientID == "" || o.Grant.Kind == "" || o.Grant.Kind == KindCode || o.Grant.Kind == KindDevice {
		return Grant{}, errors.New("open grant: a grant names itself, its client and how it began, which is without a page")
	}
	a := Answer{Client: o.Client, Document: o.Document, Grant: o.Grant}
	if err := a.fits(); err != nil {
		return Grant{}, wrap("open grant", err)
	}
	var g grantRow
	err := s.write(ctx, func(t *tx) error {
		for _, id := range o.Spend {
			if err := t.spendID(spentKey(id.Issuer, id.ID), id.Expires, now); err != nil {
				return err
			}
		}
		if err := t.userStands(o.Grant.UserID); err != nil {
			return err
		}
		version, err := t.admit(a, now)
		if err != nil {
			return err
		}
		open := o.Grant
		open.Version = version
		if err := t.insertGrant(open, now.Add(UnboundGrant), now); err != nil {
			return err
		}
		if o.Refresh != nil {
			r := Redemption{Method: open.AuthMethod, KeyThumbprint: open.KeyThumbprint, Refresh: o.Refresh,
				JKT: open.JKT, InstanceJKT: open.InstanceJKT, CertThumbprint: open.CertThumbprint}
			if err := t.bind(open.ID, r, now); err != nil {
				return err
			}
		}
		if err := t.get(g.columns(), `SELECT `+grantColumns+` FROM grants g WHERE g.id = $1`, open.ID); err != nil {
			return err
		}
		return t.record(now, o.Events...)
	})
	if err != nil {
		return Grant{}, wrap("open grant", err)
	}
	return g.Grant, nil
}

// userStands checks that an account exists and is not disabled. No account at all
// stands: the client acts for itself.
func (t *tx) userStands(id string) error {
	if id == "" {
		return nil
	}
	var disabled bool
	err := t.get([]any{&disabled}, `SELECT disabled_at IS NOT NULL FROM users WHERE id = $1`, id)
	if err == nil && disabled {
		err = ErrEnded
	}
	return err
}
