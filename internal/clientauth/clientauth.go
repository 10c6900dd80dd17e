// Package clientauth is the only client authentication of the house: every
// endpoint that a client calls directly goes through [Authenticator.Authenticate]
// before it looks at anything else, so that no grant can forget it and a failed
// attempt can burn nothing. [Authenticator.Proof] is the only check of DPoP proofs
// for these endpoints.
//
// A client is known because somebody agreed to it or an operator registered it.
// Its document is fetched only where [Request.Resolve] says that strangers may
// come, and its keys are read again only after everything that can be checked
// without them was found right (CAUTH-12).
package clientauth

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/bonafide-id/bonafide/cimd"
	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/directory"
	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/internal/web"
	"github.com/bonafide-id/bonafide/oauth"
)

// Directory is what authentication asks of the directory of clients.
type Directory interface {
	// Stored returns a client that is known here, without fetching anything.
	Stored(ctx context.Context, clientID string) (*directory.Client, error)
	// Find returns a client that may be a stranger; with mayFetch its document is
	// fetched, within the budgets of the resolver (FETCH-19).
	Find(ctx context.Context, clientID string, mayFetch bool) (*directory.Client, error)
	// Keys returns the client's keys; an unknown kid makes it look again, at a
	// bounded rate.
	Keys(ctx context.Context, c *directory.Client, kid string) (jose.Set, error)
}

// Spender makes assertions single-use, across replicas. A second use of the
// same id is store.ErrSpent.
type Spender interface {
	SpendID(ctx context.Context, issuer string, id store.Hash, expires, now time.Time) error
}

// Config configures an [Authenticator]. Issuer, Directory and Spender are required.
type Config struct {
	Issuer    string // the only audience an assertion may have
	Directory Directory
	Spender   Spender
	Now       func() time.Time // nil is time.Now
	Limiter   *Limiter         // of wrong secrets; nil is one with the defaults
	Audit     *audit.Log       // told which check failed; may be nil

	Nonces       *jose.Nonces // of DPoP and attestations, the same on all replicas; nil is one of this process
	RequireNonce bool         // a DPoP proof has to carry a nonce of ours (DPOP-03)
	Attestation  *Attestation // nil: attestations are not looked at
	MTLS         *MTLS        // nil: certificates are not looked at
}

// Authenticator tells whether a request comes from the client it names. It is
// safe for concurrent use.
type Authenticator struct {
	cfg    Config
	hint   string
	memory *memory

	instances *memory // of attested clients
}

// New checks the configuration.
func New(c Config) (*Authenticator, error) {
	if c.Issuer == "" || c.Directory == nil || c.Spender == nil {
		return nil, errors.New("clientauth: issuer, directory and spender are required")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Limiter == nil {
		c.Limiter = NewLimiter(LimiterConfig{Now: c.Now})
	}
	if c.Nonces == nil {
		c.Nonces = jose.RandomNonces(0)
	}
	return &Authenticator{cfg: c, memory: newMemory(memoryPerSecond, memoryAtOnce), instances: newMemory(instancePerSecond, instanceAtOnce), hint: "the client could not be authenticated; a public client sends client_id in the body, " +
		"a client with keys a fresh single-use assertion whose only audience is " + c.Issuer}, nil
}

// Request is what a request says about its client. [FromHTTP] makes it.
type Request struct {
	Basic             bool // an Authorization header of the Basic scheme was sent
	BasicUser         string
	BasicPass         string
	ClientID          string
	Secret            string // client_secret in the body
	AssertionType     string
	Assertion         string
	Attestations      []string // values of OAuth-Client-Attestation
	AttestationProofs []string // values of OAuth-Client-Attestation-PoP

	// Resolve says that the client may be one that nobody agreed to yet, so that
	// its document may be fetched. The handler sets it.
	Resolve bool
	// Prefer says, with Resolve, what is better than a fetch.
	Prefer Preference
	// Admit is asked with the claimed client_id before a stranger is looked up; an
	// error is the answer. Nil admits everybody.
	Admit func(ctx context.Context, clientID string) error

	http                *http.Request // for the DPoP proof and the certificate; nil in tests
	unusableCredentials string        // why the Authorization header cannot be used; "" if it can
	claimed             string        // the client_id, not yet proven
}

// Preference says which description of a client counts where its document may be
// fetched. A fetch is the last resort for all but the first.
type Preference uint8

// The preferences. A client of which nothing is known is looked up under each.
const (
	PreferFresh  Preference = iota // the document, which is read anew when that is due
	PreferCached                   // a document that need not be read anew, else what was kept
	PreferKept                     // what was kept when somebody agreed to the client
)

// FromHTTP takes the credentials from a request. The parts of HTTP Basic are
// form-decoded, because a URL as client_id holds colons (OAuth 2.1 section
// 2.4.1, URL-17).
func FromHTTP(r *http.Request, p web.Params) Request {
	q := Request{
		ClientID: p.Form["client_id"], Secret: p.Form["client_secret"],
		AssertionType: p.Form["client_assertion_type"], Assertion: p.Form["client_assertion"],
		Attestations: r.Header.Values(headerAttestation), AttestationProofs: r.Header.Values(headerAttestationPoP),
		http: r,
	}
	headers := r.Header.Values("Authorization")
	if len(headers) == 0 {
		return q
	}
	q.Basic = true
	user, pass, ok := r.BasicAuth()
	if len(headers) > 1 || !ok {
		q.unusableCredentials = "the Authorization header is not one of the Basic scheme"
		return q
	}
	var errs [2]error
	q.BasicUser, errs[0] = url.QueryUnescape(user)
	q.BasicPass, errs[1] = url.QueryUnescape(pass)
	if errors.Join(errs[:]...) != nil {
		q.unusableCredentials = "user name or password of the Authorization header is not form-encoded"
	}
	return q
}

// Client is a client that authenticated, and how.
type Client struct {
	*directory.Client
	Method string

	// KeyThumbprint is that of the client's key behind a private_key_jwt or a
	// certificate, and otherwise empty.
	KeyThumbprint string

	// InstanceJKT is the thumbprint of the key that an attestation vouches for,
	// that of one installation of the client; otherwise empty. Codes and refresh
	// tokens belong to it: a grant that has an InstanceJKT is refused to a request
	// without the same one (ATT-08, ATT-09).
	InstanceJKT string

	// CertThumbprint is the SHA-256 of the client's TLS certificate in base64url
	// (x5t#S256) where tokens are to be bound to it: where the client's document
	// asks for tls_client_certificate_bound_access_tokens (RFC 8705 section 3.4).
	CertThumbprint string

	proof *jose.Proof // that authenticated the client already (ATT-10)
}

// Authenticate returns the client behind a request. Every failure that depends
// on the credentials is the same invalid_client to the outside; which check
// failed stands in the audit log, under the reference of the request, and in the
// private cause (CAUTH-17). More than one mechanism is invalid_request
// (CAUTH-02). An error that is no *oauth.Error is a failure of our own.
func (a *Authenticator) Authenticate(ctx context.Context, q Request) (*Client, error) {
	q.claimed = cmp.Or(q.ClientID, q.BasicUser)
	c, err := a.authenticate(ctx, &q)
	if err == nil {
		err = a.shown(c, &q)
	}
	if err == nil {
		return c, nil
	}
	if _, told := errors.AsType[*web.Refusal](err); told { // about a stranger's document
		return nil, err
	}
	if e, ok := errors.AsType[*oauth.Error](err); ok && e.Code == oauth.InvalidClient {
		return nil, a.uniform(ctx, q.claimed, e)
	}
	return nil, err
}

// uniform hides which check failed behind the one refusal of this package.
func (a *Authenticator) uniform(ctx context.Context, claimed string, e *oauth.Error) *oauth.Error {
	if a.cfg.Audit != nil {
		check := e.Hint // of the directory, which may know no cause
		if e.Err != nil {
			check = e.Err.Error()
		}
		ev := audit.Event{
			Time: a.cfg.Now(), Type: audit.TypeRefusal, Ref: web.Ref(ctx), Client: claimed,
			Rule: e.Rule, Code: string(e.Code), Data: map[string]string{"check": check},
		}
		if ip := web.ClientIP(ctx); ip.IsValid() {
			ev.IP = ip.String()
		}
		a.cfg.Audit.Note(ev)
	}
	return oauth.Refuse(oauth.InvalidClient, "%s", a.hint).Under("CAUTH-17").Because(e)
}

func (a *Authenticator) authenticate(ctx context.Context, q *Request) (*Client, error) {
	assertion := q.Assertion != "" || q.AssertionType != ""
	attested := a.cfg.Attestation != nil && len(q.Attestations)+len(q.AttestationProofs) > 0
	mechanisms := 0
	for _, used := range []bool{q.Basic, q.Secret != "", assertion, attested} {
		if used {
			mechanisms++
		}
	}
	switch {
	case mechanisms > 1:
		return nil, oauth.Refuse(oauth.InvalidRequest, "the client authenticates in more than one way; use exactly one").Under("CAUTH-02")
	case q.Basic && q.unusableCredentials != "":
		return nil, fail("TOK-19", "%s", q.unusableCredentials)
	case q.Basic && q.ClientID != "" && q.ClientID != q.BasicUser:
		return nil, oauth.Refuse(oauth.InvalidRequest, "client_id in the body is not the one in the Authorization header").Under("CAUTH-02")
	case assertion:
		return a.assertion(ctx, q)
	case attested:
		return a.attested(ctx, q)
	case q.Basic:
		return a.secret(ctx, q, given{q.BasicUser, q.BasicPass, oauth.MethodSecretBasic})
	case q.Secret != "":
		return a.secret(ctx, q, given{q.ClientID, q.Secret, oauth.MethodSecretPost})
	}
	return a.public(ctx, q)
}

// public lets a client in that only names itself, unless it is one that is known
// by its certificate.
func (a *Authenticator) public(ctx context.Context, q *Request) (*Client, error) {
	if q.ClientID == "" {
		return nil, oauth.Refuse(oauth.InvalidRequest, "client_id is missing").Under("CAUTH-02")
	}
	c, err := a.find(ctx, q, q.ClientID, true)
	if err != nil {
		return nil, err
	}
	if a.cfg.MTLS != nil && slices.Contains(c.AuthMethods, oauth.MethodSelfSignedTLS) {
		cert, err := a.certificate(q)
		if err != nil {
			return nil, err
		}
		if cert != nil || !slices.Contains(c.AuthMethods, oauth.MethodNone) {
			return a.selfSigned(ctx, c, cert)
		}
	}
	if err := mayUse(c, oauth.MethodNone); err != nil {
		return nil, err
	}
	return &Client{Client: c, Method: oauth.MethodNone}, nil
}

type given struct{ id, secret, method string }

// secret compares a shared secret. Only a registered client can have one: a
// client that is a document never does (CAUTH-13, CAUTH-14).
func (a *Authenticator) secret(ctx context.Context, q *Request, g given) (*Client, error) {
	if g.secret == "" {
		return nil, fail("CAUTH-13", "no secret was sent for %q", g.id)
	}
	c, err := a.find(ctx, q, g.id, false)
	if errors.Is(err, directory.ErrDeferred) {
		return nil, fail("CAUTH-14", "a secret was sent for a client that is a document")
	}
	if err == nil {
		err = mayUse(c, g.method)
	}
	if err != nil {
		return nil, err
	}
	if c.Source == store.SourceCIMD || c.SecretHash == "" {
		return nil, fail("CAUTH-14", "a secret was sent for a client that has none")
	}
	source := Source(ctx, g.id)
	if !a.cfg.Limiter.Allow(source) {
		return nil, oauth.Refuse(oauth.TemporarilyUnavailable, "too many failed attempts from this address; try again in a minute").Under("POL-08")
	}
	if !SecretMatches(g.secret, c.SecretHash) {
		a.cfg.Limiter.Failed(source)
		return nil, fail("CAUTH-13", "the secret is wrong")
	}
	a.cfg.Limiter.Passed(source)
	return &Client{Client: c, Method: g.method}, nil
}

// known returns a client that may use the method.
func (a *Authenticator) known(ctx context.Context, q *Request, id, method string) (*directory.Client, error) {
	c, err := a.find(ctx, q, id, true)
	if err != nil {
		return nil, err
	}
	return c, mayUse(c, method)
}

// find looks the client up: among those that are known here, and where strangers
// may come also at its own address. What is wrong with a stranger's document says
// nothing about credentials, so that its developer is told (X15). Without mayFetch
// a stranger is directory.ErrDeferred.
func (a *Authenticator) find(ctx context.Context, q *Request, id string, mayFetch bool) (*directory.Client, error) {
	web.SetClient(ctx, id)
	if q.Resolve {
		if q.Admit != nil {
			if err := q.Admit(ctx, id); err != nil {
				return nil, err
			}
		}
		if q.Prefer == PreferCached {
			if c, err := a.cfg.Directory.Find(ctx, id, false); !errors.Is(err, directory.ErrDeferred) {
				return c, err
			}
		}
		if q.Prefer != PreferFresh {
			if c, err := a.cfg.Directory.Stored(ctx, id); err == nil {
				return c, nil
			}
		}
		return a.cfg.Directory.Find(cimd.WithSource(ctx, web.Network(web.ClientIP(ctx))), id, mayFetch) // who asks pays for the fetch
	}
	c, err := a.cfg.Directory.Stored(ctx, id)
	if e, ok := errors.AsType[*oauth.Error](err); ok && e.Code == oauth.InvalidClient {
		return nil, fail(cmp.Or(e.Rule, "CAUTH-17"), "the client is not known here")
	}
	return c, err
}

// mayUse checks that the client may use the method: by its own word (CAUTH-01)
// and by the operator's (POL-03).
func mayUse(c *directory.Client, method string) error {
	if c.Source == store.SourceCIMD && strings.HasPrefix(method, "client_secret_") {
		return fail("CAUTH-14", "a secret was sent for a client that is a document")
	}
	if !slices.Contains(c.AuthMethods, method) {
		return fail("CAUTH-01", "the client uses %s and not %s", strings.Join(c.AuthMethods, ", "), method)
	}
	if !c.Decision.MayAuthenticate(method) {
		return fail("POL-03", "policy rule %q does not accept %s", c.Decision.Rule, method)
	}
	return nil
}

// fail is a failed check: the rule and the cause, for the audit log only.
func fail(rule, cause string, args ...any) *oauth.Error {
	return &oauth.Error{Code: oauth.InvalidClient, Hint: "a check failed", Rule: rule, Err: fmt.Errorf(cause, args...)}
}

// NewSecret returns a fresh client secret of 256 bits and the form in which it
// is stored. Secrets are only ever generated, so that a plain hash of one cannot
// be guessed back.
func NewSecret() (secret, stored string) {
	secret = oauth.RandomToken(32)
	return secret, HashSecret(secret)
}

// HashSecret returns the stored form of a generated secret: its SHA-256 in hex.
func HashSecret(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}
