// Package directory answers "who is client_id?". A registered row always wins
// over a document, a blocked client is refused before anything is fetched, the
// policy is asked on every call, and only then is a document resolved. /token
// and its neighbours read the stored snapshot and never the network.
package directory

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bonafide-id/bonafide/cimd"
	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/internal/policy"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/oauth"
)

// Store is what the directory may read and keep.
type Store interface {
	Client(ctx context.Context, id string) (store.Client, error)
	ClientStanding(ctx context.Context, id string) (store.Client, error)
	Document(ctx context.Context, clientID string) (store.Document, error)
	LoadCache(ctx context.Context, key string) ([]byte, bool, error)
	SaveCache(ctx context.Context, key, clientID string, entry []byte) error
}

// Config is what a directory is built from.
type Config struct {
	Store    Store
	Policy   *policy.Set // checked
	CIMD     cimd.Config // Admit, Persist and Disabled are the directory's own
	Enabled  bool        // whether documents are resolved at all
	Reserved []string    // URLs that cannot be clients, such as the issuer; the resources never can (URL-14)
	Logger   *slog.Logger
	Now      func() time.Time
}

// Directory looks clients up. It is safe for use by many goroutines.
type Directory struct {
	cfg      Config
	resolver *cimd.Resolver
	rules    atomic.Pointer[rules]
	enabled  atomic.Bool

	mu        sync.Mutex // guards snapshots
	snapshots map[string]*cimd.Document
}

// rules is what a reload replaces, in one piece.
type rules struct {
	policy *policy.Set
	urls   cimd.URLRules
}

// maxSnapshots bounds the parsed copies of stored documents. They are keyed by
// client_id and digest and exist only for clients with a row.
const maxSnapshots = 4096

// New builds a directory and the resolver below it.
func New(cfg Config) (*Directory, error) {
	if cfg.Store == nil || cfg.Policy == nil {
		return nil, errors.New("directory: store and policy are needed")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	d := &Directory{cfg: cfg, snapshots: map[string]*cimd.Document{}}
	d.SetPolicy(cfg.Policy)
	d.enabled.Store(cfg.Enabled)
	rc := cfg.CIMD
	rc.URL.Reserved = cfg.Reserved
	rc.Admit = d.admit
	rc.Persist = persister{cfg.Store}
	rc.Disabled = func() bool { return !d.enabled.Load() }
	var err error
	if d.resolver, err = cimd.New(rc); err != nil {
		return nil, fmt.Errorf("directory: %w", err)
	}
	return d, nil
}

// Policy returns the policy in force.
func (d *Directory) Policy() *policy.Set { return d.rules.Load().policy }

// SetPolicy puts another policy in force, from the next look-up on. Its resources
// and their aliases can be no clients from then on (URL-14).
func (d *Directory) SetPolicy(p *policy.Set) {
	urls := d.cfg.CIMD.URL
	urls.Reserved = slices.Clone(d.cfg.Reserved)
	for i := range p.Resources {
		urls.Reserved = append(append(urls.Reserved, p.Resources[i].ID), p.Resources[i].Aliases...)
	}
	d.rules.Store(&rules{p, urls})
}

// Enabled reports whether documents are resolved, and so advertised (META-05).
func (d *Directory) Enabled() bool { return d.enabled.Load() }

// SetEnabled is the one switch that stops fetching and advertising together.
func (d *Directory) SetEnabled(on bool) { d.enabled.Store(on) }

// Resolver returns the resolver, for status and maintenance.
func (d *Directory) Resolver() *cimd.Resolver { return d.resolver }

// ErrDeferred says that a document would have to be fetched and that the caller
// asked for that not to happen yet (FETCH-20).
var ErrDeferred = errors.New("the document is not in the cache and may not be fetched yet")

// Find returns the client for a new authorization. It may fetch the document
// unless mayFetch is false. An error is ErrDeferred, a *web.Refusal, or a
// failure of our own.
func (d *Directory) Find(ctx context.Context, clientID string, mayFetch bool) (*Client, error) {
	row, known, err := d.row(ctx, clientID)
	if err != nil {
		return nil, err
	}
	if known && row.State != StateAllowed {
		return nil, refuseState(clientID, row.State)
	}
	if known && row.Source != SourceCIMD {
		return d.registered(row)
	}
	id, err := d.parse(clientID)
	if err != nil {
		return nil, err
	}
	set := d.Policy()
	decision := set.Decide(subject(id))
	if decision.Action != policy.Allow {
		return nil, refusePolicy(clientID, decision)
	}
	doc, err := d.document(ctx, row, id, mayFetch)
	if err != nil {
		return nil, err
	}
	c := fromDocument(doc, set)
	c.FirstSeen = row.Version == 0 // also where an operator decided about it beforehand
	if known {
		c.Version = row.Version
		d.resolver.Pin(id, true)
	}
	if err := ceilings(c); err != nil {
		return nil, err
	}
	return c, nil
}

// document returns the document to go by: the version that an operator pinned,
// the cached one, or the one that the host answers with.
func (d *Directory) document(ctx context.Context, row store.Client, id cimd.ID, mayFetch bool) (*cimd.Document, error) {
	if row.Pinned > 0 {
		return d.snapshot(ctx, row)
	}
	if doc, ok := d.resolver.Cached(ctx, id); ok {
		return doc, nil
	}
	if !mayFetch {
		return nil, ErrDeferred
	}
	doc, err := d.resolver.Resolve(ctx, id)
	if err != nil {
		return nil, refuseResolve(id.String(), err)
	}
	return doc, nil
}

// Stored returns the client from what is kept about it: the registered row, or
// the snapshot of the document that somebody agreed to. It never fetches
// (TOK-06, REV-04). The caller looks at State and Decision. An unknown client is
// an invalid_client refusal; a store that does not answer is not (URL-15).
func (d *Directory) Stored(ctx context.Context, clientID string) (*Client, error) {
	row, known, err := d.row(ctx, clientID)
	if err != nil {
		return nil, err
	}
	if !known {
		return nil, unknown()
	}
	if row.Source != SourceCIMD {
		return d.fromRow(row), nil
	}
	doc, err := d.snapshot(ctx, row)
	if err != nil {
		return nil, err
	}
	c := fromDocument(doc, d.Policy())
	c.State, c.Version = row.State, row.Version
	return c, nil
}

// Keys returns the client's public keys, from its inline set or its jwks_uri;
// those of a registered client stand in its row.
// kid is what the caller looks for: if the cached set lacks it, the set is
// fetched again at most once per cool-down (CACHE-19).
func (d *Directory) Keys(ctx context.Context, c *Client, kid string) (jose.Set, error) {
	if c.Doc == nil {
		if len(c.JWKS) == 0 {
			return jose.Set{}, nil
		}
		return jose.ParseSet(c.JWKS, jose.SetLimits{})
	}
	raw, err := d.resolver.Keys(ctx, c.Doc, kid)
	if err != nil {
		return jose.Set{}, fmt.Errorf("keys of %s: %w", c.ID, err)
	}
	return jose.ParseRemoteSet(raw, jose.SetLimits{})
}

// Logo returns the client's logo, re-encoded as PNG. The caller shows the page
// without one when there is an error.
func (d *Directory) Logo(ctx context.Context, clientID string) ([]byte, error) {
	id, err := d.parse(clientID)
	if err != nil {
		return nil, err
	}
	doc, ok := d.resolver.Cached(ctx, id)
	if !ok {
		return nil, ErrDeferred
	}
	return d.resolver.Logo(ctx, doc)
}

// Revalidate looks at the documents of these clients again where that is due. It
// is for housekeeping: failures are events of the resolver, not errors here.
func (d *Directory) Revalidate(ctx context.Context, clientIDs []string) {
	ids := make([]cimd.ID, 0, len(clientIDs))
	for _, c := range clientIDs {
		id, err := d.parse(c)
		if err != nil || d.admit(ctx, id) != nil {
			continue
		}
		d.resolver.Pin(id, true)
		if row, _, err := d.row(ctx, c); err == nil && row.Pinned == 0 { // a pinned one is not followed
			ids = append(ids, id)
		}
	}
	d.resolver.Revalidate(ctx, ids)
}

// row returns the row of a client: all of it for a registered one, and of one with
// a document only how it stands, because the rest is in the document.
func (d *Directory) row(ctx context.Context, clientID string) (store.Client, bool, error) {
	row, err := d.cfg.Store.ClientStanding(ctx, clientID)
	if err == nil && row.Source != SourceCIMD {
		row, err = d.cfg.Store.Client(ctx, clientID)
	}
	switch {
	case errors.Is(err, store.ErrNotFound):
		return row, false, nil
	case err != nil:
		return row, false, fmt.Errorf("look up client: %w", err)
	}
	return row, true, nil
}

// parse turns a client_id that no row knows into an ID, or says why it cannot be.
func (d *Directory) parse(clientID string) (cimd.ID, error) {
	if !cimd.LooksLikeURL(clientID) {
		return cimd.ID{}, refuseUnknown(clientID)
	}
	if !d.enabled.Load() {
		return cimd.ID{}, refuseDisabled(clientID)
	}
	id, err := d.rules.Load().urls.Parse(clientID)
	if err != nil {
		return cimd.ID{}, refuseResolve(clientID, err)
	}
	return id, nil
}

// admit is the hook of the resolver: the policy, before any lookup.
func (d *Directory) admit(_ context.Context, id cimd.ID) error {
	if dec := d.Policy().Decide(subject(id)); dec.Action != policy.Allow {
		return fmt.Errorf("policy rule %q says %s", dec.Rule, dec.Action)
	}
	return nil
}

func (d *Directory) snapshot(ctx context.Context, row store.Client) (*cimd.Document, error) {
	key := fmt.Sprintf("%d %s", row.Version, row.ID)
	d.mu.Lock()
	doc, ok := d.snapshots[key]
	d.mu.Unlock()
	if ok {
		return doc, nil
	}
	kept, err := d.cfg.Store.Document(ctx, row.ID)
	if errors.Is(err, store.ErrNotFound) { // an operator decided about it before anybody agreed to it
		return nil, unknown()
	}
	if err != nil {
		return nil, fmt.Errorf("load the document of a client: %w", err)
	}
	id, err := d.rules.Load().urls.Parse(row.ID)
	if err == nil {
		doc, err = cimd.Validate(id, kept.Body, d.cfg.CIMD.Profile, d.cfg.CIMD.Supported)
	}
	if err != nil { // it was accepted once: the rules of this server have changed
		return nil, oauth.Refuse(oauth.InvalidClient, "the rules of this server no longer accept the client").Under("TOK-16").Because(err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.snapshots) >= maxSnapshots {
		clear(d.snapshots)
	}
	d.snapshots[fmt.Sprintf("%d %s", kept.Version, row.ID)] = doc
	return doc, nil
}

func unknown() error {
	return oauth.Refuse(oauth.InvalidClient, "the client is not known here, or did not prove who it is")
}

func (d *Directory) registered(row store.Client) (*Client, error) {
	if !row.Expires.IsZero() && !d.cfg.Now().Before(row.Expires) { // it has to register itself anew (DCR-01)
		return nil, refuseUnknown(row.ID)
	}
	c := d.fromRow(row)
	if c.Decision.Action != policy.Allow {
		return nil, refusePolicy(row.ID, c.Decision)
	}
	if row.Source == SourceDCR {
		if err := ceilings(c); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func subject(id cimd.ID) policy.Subject {
	return policy.Subject{ID: id.String(), Host: strings.ToLower(id.Host()), Port: id.Port()}
}

// persister keeps cache entries in the store, which takes them only for clients
// that have a row.
type persister struct{ s Store }

func (p persister) Load(ctx context.Context, key string) ([]byte, bool, error) {
	return p.s.LoadCache(ctx, key)
}

func (p persister) Save(ctx context.Context, key string, id cimd.ID, entry []byte) error {
	return p.s.SaveCache(ctx, key, id.String(), entry)
}
