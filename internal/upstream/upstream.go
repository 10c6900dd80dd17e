// Package upstream signs people in at an OpenID provider that the operator named:
// authorization code flow with PKCE, state and nonce, and a strict reading of the
// ID token that comes back. It answers one question, who is it there, and keeps
// nothing else: the provider's tokens are dropped before Exchange returns
// (OIDC-07). Everything is asked under the guard that keeps requests away from
// inner addresses, unless the operator says that the provider is inside.
package upstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/internal/safehttp"
	"github.com/bonafide-id/bonafide/oauth"
)

// Config names one provider. Name, Issuer, ClientID, RedirectURI and Egress are
// required.
type Config struct {
	Name        string // our short name for it: it stands in the redirect URI
	Issuer      string // byte for byte as in its discovery document
	ClientID    string
	Secret      string   // "" for a public client
	Scopes      []string // nil is openid, email, profile
	RedirectURI string
	// EmailsVerified says that the provider verifies every address, so that one
	// without email_verified counts as verified.
	EmailsVerified bool
	Egress         *safehttp.Fetcher
	Now            func() time.Time // nil is time.Now
}

// Bounds on what a provider may send, and how long it is used.
const (
	maxDocument = 256 << 10 // discovery, key set
	maxAnswer   = 64 << 10  // of the token endpoint
	maxIDToken  = 32 << 10
	timeout     = 10 * time.Second
	life        = time.Hour        // of discovery and keys
	lastGood    = 24 * life        // of both, while the provider does not answer
	coolDown    = 30 * time.Second // between two looks that a stranger can cause
	pause       = 3 * time.Second  // after a failure
	skew        = time.Minute      // between its clock and ours
	maxAge      = 10 * time.Minute // of an ID token that has just been issued
)

// ErrUnavailable says that the provider could not be asked; nothing is known
// about the person.
var ErrUnavailable = errors.New("the sign-in provider does not answer as it should")

// ErrRefused says that what came back does not prove anything.
var ErrRefused = errors.New("the sign-in provider's answer is not acceptable")

func unavailable(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrUnavailable, fmt.Errorf(format, args...))
}

func refused(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrRefused, fmt.Errorf(format, args...))
}

// Provider is one upstream provider. It is safe for concurrent use.
type Provider struct {
	cfg Config

	mu        sync.Mutex // guards what follows, also while somebody asks the provider
	found     *discovery
	foundAt   time.Time
	failed    error // of the last look, as long as it is younger than a pause
	failedAt  time.Time
	keys      jose.Set
	keysAt    time.Time
	keysTried time.Time
	keysErr   error // of the last look
}

// discovery is what we use of an OpenID provider's metadata.
type discovery struct {
	Issuer        string   `json:"issuer"`
	Authorization string   `json:"authorization_endpoint"`
	Token         string   `json:"token_endpoint"`
	JWKS          string   `json:"jwks_uri"`
	AuthMethods   []string `json:"token_endpoint_auth_methods_supported"`
	IssParameter  bool     `json:"authorization_response_iss_parameter_supported"`
}

// New checks the configuration. The provider is not asked yet.
func New(c Config) (*Provider, error) {
	if c.Name == "" || c.ClientID == "" || c.RedirectURI == "" || c.Egress == nil {
		return nil, errors.New("upstream: a name, a client_id, a redirect URI and an egress are required")
	}
	if u, err := url.Parse(c.Issuer); err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("upstream %s: issuer %q is not a plain https URL", c.Name, c.Issuer)
	}
	if c.Scopes == nil {
		c.Scopes = []string{oauth.ScopeOpenID, "email", "profile"}
	}
	if !slices.Contains(c.Scopes, oauth.ScopeOpenID) {
		return nil, fmt.Errorf("upstream %s: scopes must hold openid", c.Name)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Provider{cfg: c}, nil
}

// Name returns our short name for the provider.
func (p *Provider) Name() string { return p.cfg.Name }

// Issuer returns its issuer identifier.
func (p *Provider) Issuer() string { return p.cfg.Issuer }

// Trip is one way to the provider and back. Only State travels through the
// provider; the rest stays with the browser that began.
type Trip struct {
	State, Nonce, Verifier string
	Fresh                  bool          // the person must prove again who they are
	MaxAge                 time.Duration // how long ago they may have done so; 0 is no bound
	Choose                 bool          // the person wants to choose among accounts
	Hint                   string        // a user name to start from; "" for none
	ACR                    []string      // contexts, in the words of the provider, the preferred one first; nil: any
}

// AuthURL returns where to send the browser. The error is ErrUnavailable.
func (p *Provider) AuthURL(ctx context.Context, t Trip) (string, error) {
	d, err := p.discover(ctx)
	if err != nil {
		return "", err
	}
	q := []string{
		"response_type", "code", "client_id", p.cfg.ClientID, "redirect_uri", p.cfg.RedirectURI, "scope", strings.Join(p.cfg.Scopes, " "),
		"state", t.State, "nonce", t.Nonce, "code_challenge", oauth.S256(t.Verifier), "code_challenge_method", "S256",
		"login_hint", t.Hint, "acr_values", strings.Join(t.ACR, " "),
	}
	var prompt []string
	switch {
	case t.Fresh:
		prompt = append(prompt, "login")
		q = append(q, "max_age", "0")
	case t.MaxAge > 0:
		q = append(q, "max_age", strconv.FormatInt(int64(t.MaxAge/time.Second), 10))
	}
	if t.Choose {
		prompt = append(prompt, "select_account")
	}
	q = append(q, "prompt", strings.Join(prompt, " "))
	return oauth.AppendQuery(d.Authorization, q...), nil
}

// CheckIssuer compares the iss parameter of an answer with the provider that was
// asked. It must be there when the provider says that it sends it (RFC 9207,
// OIDC-06).
func (p *Provider) CheckIssuer(ctx context.Context, iss string) error {
	if iss == p.cfg.Issuer {
		return nil
	}
	if iss != "" {
		return refused("iss of the answer is not the provider that was asked")
	}
	d, err := p.discover(ctx)
	if err != nil {
		return err
	}
	if d.IssParameter {
		return refused("iss is missing in the answer although the provider says that it sends it")
	}
	return nil
}

// Exchange redeems a code and returns who the person is at the provider. The
// provider's tokens end here. The error is ErrUnavailable or ErrRefused.
func (p *Provider) Exchange(ctx context.Context, code string, t Trip) (*Person, error) {
	d, err := p.discover(ctx)
	if err != nil {
		return nil, err
	}
	form := safehttp.Form{URL: d.Token, Accept: "application/json", MaxBody: maxAnswer, Timeout: timeout, Values: url.Values{
		"grant_type": {oauth.GrantAuthorizationCode}, "code": {code}, "redirect_uri": {p.cfg.RedirectURI}, "code_verifier": {t.Verifier},
	}}
	switch {
	case p.cfg.Secret == "":
		form.Values.Set("client_id", p.cfg.ClientID)
	case len(d.AuthMethods) > 0 && !slices.Contains(d.AuthMethods, oauth.MethodSecretBasic) && slices.Contains(d.AuthMethods, oauth.MethodSecretPost):
		form.Values.Set("client_id", p.cfg.ClientID)
		form.Values.Set("client_secret", p.cfg.Secret)
	default:
		form.User, form.Secret = p.cfg.ClientID, p.cfg.Secret
	}
	resp, err := p.cfg.Egress.Post(ctx, form)
	if err != nil {
		return nil, unavailable("token endpoint: %w", err)
	}
	var answer struct {
		IDToken string `json:"id_token"`
		Error   string `json:"error"`
	}
	err = json.Unmarshal(resp.Body, &answer)
	switch {
	case resp.Status >= 500:
		return nil, unavailable("token endpoint: status %d", resp.Status)
	case resp.Status != http.StatusOK:
		return nil, refused("token endpoint: status %d, error %.64q", resp.Status, answer.Error)
	case err != nil || answer.IDToken == "":
		return nil, refused("token endpoint: no ID token in its answer")
	}
	return p.verify(ctx, answer.IDToken, t.Nonce)
}

// discover returns the provider's metadata, asking for it at most once an hour;
// an older copy is used while the provider does not answer. Between two looks that
// failed there is a pause, which begins when the first one ends: nobody waits in a
// row for a provider that hangs.
func (p *Provider) discover(ctx context.Context) (*discovery, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.cfg.Now()
	if p.found != nil && now.Sub(p.foundAt) < life {
		return p.found, nil
	}
	wait := pause
	if p.found != nil {
		wait = coolDown
	}
	if p.failed == nil || now.Sub(p.failedAt) >= wait {
		d, err := p.ask(ctx)
		p.failed, p.failedAt = err, p.cfg.Now()
		if err == nil {
			p.found, p.foundAt = d, now
			return d, nil
		}
	}
	if p.found != nil && errors.Is(p.failed, ErrUnavailable) && now.Sub(p.foundAt) < lastGood {
		return p.found, nil
	}
	return nil, p.failed
}

// ask reads the discovery document (OpenID Connect Discovery section 4). Its
// issuer must be the one that was asked for, byte for byte, and every endpoint an
// https URL; where they lead is judged when they are dialled (CN-17).
func (p *Provider) ask(ctx context.Context) (*discovery, error) {
	raw, err := p.get(ctx, strings.TrimSuffix(p.cfg.Issuer, "/")+"/.well-known/openid-configuration")
	if err != nil {
		return nil, err
	}
	var d discovery
	if _, err := jose.Object(raw); err != nil || json.Unmarshal(raw, &d) != nil {
		return nil, unavailable("discovery: not a JSON object as it should be")
	}
	if d.Issuer != p.cfg.Issuer {
		return nil, refused("discovery: the document is about another issuer")
	}
	for name, endpoint := range map[string]string{"authorization_endpoint": d.Authorization, "token_endpoint": d.Token, "jwks_uri": d.JWKS} {
		if u, err := url.Parse(endpoint); err != nil || u.Scheme != "https" || u.Host == "" || u.Fragment != "" || u.User != nil {
			return nil, refused("discovery: %s is not an https URL", name)
		}
	}
	return &d, nil
}

// get reads a document that everybody goes by: whoever happens to have caused the
// look does not end it by going away (DS-04).
func (p *Provider) get(ctx context.Context, address string) ([]byte, error) {
	resp, err := p.cfg.Egress.Get(context.WithoutCancel(ctx), safehttp.Request{URL: address, Accept: "application/json", MaxBody: maxDocument, Timeout: timeout})
	if err != nil {
		return nil, unavailable("get: %w", err)
	}
	if resp.Status != http.StatusOK {
		return nil, unavailable("get: status %d", resp.Status)
	}
	return resp.Body, nil
}
