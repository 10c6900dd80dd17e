package store

import (
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/oauth"
)

// User is a local account. Name is what the person types; two names that differ
// only in case are the same account.
type User struct {
	ID, Name, Email, PasswordHash string
	Disabled                      bool
	Created                       time.Time
}

// Session is one signed-in browser.
type Session struct {
	Hash                                 Hash // of the cookie
	UserID                               string
	AuthTime, Created, LastSeen, Expires time.Time
	ACR                                  string
	AMR                                  []string
	SID                                  string // the name by which clients know the session; made by StartSession when empty
}

// Where a client's row came from.
const (
	SourceCIMD       = "cimd"       // a person agreed to a fetched document, or an operator listed its URL
	SourceRegistered = "registered" // an operator wrote it down; a fetched document never changes it
	SourceDCR        = "dcr"        // it registered itself (RFC 7591); a fetched document never changes it
)

// The states of a client. Only an allowed client gets anything.
const (
	StateAllowed = "allowed"
	StatePending = "pending"
	StateBlocked = "blocked"
	StateRetired = "retired"
)

// Client is what is kept about a client. A client that was only fetched has no
// row until somebody agreed to it.
type Client struct {
	ID, Source, State, Name, SecretHash string
	RedirectURIs                        []string
	GrantTypes                          []string
	AuthMethods                         []string
	Scope                               string
	HasScope                            bool
	JWKS                                []byte
	JWKSURI                             string
	Version                             int    // of the newest stored document; 0 without one
	Pinned                              int    // the version that an operator holds it to; 0 follows the document
	Reason                              string // why the state is what it is
	Created, LastUsed                   time.Time
	PostLogoutRedirectURIs              []string
	BackchannelLogoutURI                string

	// Of a client that registered itself.
	Expires          time.Time // when it gets no new grant any more; each use moves it on. Zero for never
	RegistrationHash string    // of the registration access token (RFC 7592); "" without one
	Metadata         []byte    // what its registration is answered with
}

// Document is one version of a client's metadata document, numbered from 1.
type Document struct {
	ClientID               string
	Version                int
	Body                   []byte
	Digest, SecurityDigest string
	AuthMethods            []string
	FetchedAt              time.Time
}

// Consent is an answer that is remembered: this user lets this client do this
// at this resource, as long as the security digest stays what it was (CONS-13).
type Consent struct {
	UserID, ClientID, Resource, SecurityDigest string
	Scopes                                     oauth.Scopes
	Given                                      time.Time
	Endings                                    int64 // how often anything was ended until it was read; goes into an Answer
}

// Grant is everything a later leg needs to know: no leg after the consent reads
// the live document.
type Grant struct {
	ID, UserID, ClientID, Resource string
	Scopes                         oauth.Scopes
	SecurityDigest                 string
	Version                        int      // of the document that was agreed to
	AuthMethods                    []string // allowed when it was agreed to
	AuthMethod, KeyThumbprint      string   // used at redemption; "" before
	AuthTime                       time.Time
	ACR                            string
	AMR                            []string
	Nonce                          string // of the OpenID Connect request
	Created, Ended, LastUsed       time.Time
	EndReason                      string
	Kind                           string // how it began: a constant Kind…; "" is KindCode
	JKT                            string // RFC 7638 thumbprint of the DPoP key that its tokens are bound to; "" for none
	InstanceJKT                    string // of the key of the attested instance; "" for none
	CertThumbprint                 string // x5t#S256 of the client's certificate; "" for none
	Details                        string // authorization_details as granted, a JSON array; "" for none
	SID                            string // of the session in which it was given; "" for none
	Actor                          string // the act claim as JSON (RFC 8693); "" for none
}

// How a grant began.
const (
	KindCode     = "authorization_code"
	KindDevice   = "device_code"
	KindClient   = "client_credentials"
	KindJWT      = "jwt_bearer"
	KindExchange = "token_exchange"
)

// Code is an authorization code.
type Code struct {
	Hash                   Hash
	Grant                  Grant
	RedirectURI, Challenge string // the redirect as actually used, the S256 challenge
	Expires                time.Time
	Spent                  bool
	SpentAt                time.Time
	JKT                    string // the key that is demanded at redemption (dpop_jkt, RFC 9449 section 10); "" for none
}

// Answer is a person's yes on the consent page, with all that it brings about.
type Answer struct {
	Nonce        Hash      // of the page: it can be answered once
	Session      Hash      // of the person who answers
	NonceExpires time.Time // when the page stops being answerable
	Endings      int64     // as Consent said when the page was shown; a connection ended since then is not revived (CN-18)
	Client       *Client   // as fetched; nil if the row exists. A registered or blocked row is never changed by it
	Document     *Document // what was agreed to; nil for a registered client
	Grant        Grant     // its Version is set here
	Code         Code      // its Grant is ignored
	Remember     bool      // keep the consent
	Pushed       *Hash     // the pushed request that this answers, spent with it; nil for none
	Events       []audit.Event
}

// RefreshRef is what a refresh token says of itself: its grant, its place in the
// family, 1 for the first, and the hash of what all tokens of the family share,
// which nobody knows who never held one. Hash is of the whole token. One from
// before tokens said so has only Hash.
type RefreshRef struct {
	GrantID      string
	Generation   int
	Family, Hash Hash
}

// NewRefresh is a refresh token to be written. Idle expiry is Expires, absolute
// expiry Absolute (TOK-14).
type NewRefresh struct {
	Hash, Family      Hash
	Expires, Absolute time.Time
}

// Redemption is a code, or the code of a device, that passed every check of the
// token endpoint.
type Redemption struct {
	Hash          Hash
	Method        string      // how the client authenticated
	KeyThumbprint string      // with which key, if any
	Refresh       *NewRefresh // the first refresh token; nil for none
	Events        []audit.Event

	JKT, InstanceJKT, CertThumbprint string // what the tokens are bound to; they become the grant's
}

// Refresh is a refresh token as kept. What led to its successor is known as long
// as the successor was not used in turn: later, UsedAt is when the family was
// used last, and Successor and Grace are empty.
type Refresh struct {
	RefreshRef        // complete, also of a token that says nothing of itself, whose family may be of no hash yet
	Used              bool
	UsedAt            time.Time
	Expires, Absolute time.Time // of the family's newest token
	Successor         Hash
	SuccessorUsed     bool
	Grace             []byte // the successor, sealed under a key derived from this token

	// The generations from which on tokens belong to the DPoP key and to the
	// installation of the grant, where it began without: older ones belonged to none.
	KeySince, InstanceSince int
}

// Rotation replaces one refresh token, as FindRefresh returned it, by the next.
type Rotation struct {
	Old    RefreshRef
	New    NewRefresh
	Grace  []byte
	Events []audit.Event

	// JKT and InstanceJKT tie the grant to keys, each only where it has none yet.
	JKT, InstanceJKT string

	// Keep leaves the token the newest one, good until its family ends: only its
	// use is noted, and what came before it is reuse from now on. New, Grace and the
	// keys are not used.
	Keep bool
}

// SigningKey is one of our own keys. Wrapped is the private part, encrypted by
// the caller.
type SigningKey struct {
	KID, Alg                       string
	Wrapped                        []byte
	Created, Publish, Sign, Retire time.Time
}

// EventQuery selects events with a sequence number above After, oldest first.
type EventQuery struct {
	After int64
	Limit int        // default 100, at most 1000
	Type  audit.Type // "" for all
	Ref   string     // "" for all
}

// Whose names grants by their client, their user or both. One of them is
// required.
type Whose struct{ ClientID, UserID string }
