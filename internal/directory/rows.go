package directory

import (
	"time"

	"github.com/bonafide-id/bonafide/internal/store"
)

// Rows returns what is kept about a client with a document once it is granted
// something here. A registered client is kept already: both are nil.
func (c *Client) Rows(now time.Time) (*store.Client, *store.Document) {
	doc := c.Doc
	if doc == nil {
		return nil, nil
	}
	return &store.Client{
			ID: c.ID, Source: store.SourceCIMD, State: store.StateAllowed, Name: doc.Name,
			RedirectURIs: doc.RedirectURIs, GrantTypes: doc.GrantTypes, AuthMethods: doc.AuthMethods,
			Scope: doc.Scope, HasScope: doc.HasScope, JWKS: doc.JWKS, JWKSURI: doc.JWKSURI, Created: now, LastUsed: now,
		}, &store.Document{
			ClientID: c.ID, Body: doc.Raw, Digest: doc.Digest, SecurityDigest: doc.SecurityDigest,
			AuthMethods: doc.AuthMethods, FetchedAt: doc.Fetched,
		}
}
