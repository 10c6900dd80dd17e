// Package register lets clients register themselves (RFC 7591) and look after
// their registration (RFC 7592). MCP has deprecated this way in favour of
// documents: it is here for clients that know no other, behind a switch, and what
// comes of it is trusted less than anything else. Nobody checks who registers, so
// that a registration is bounded in number and in time, and its name is a claim.
//
// What a client says is read as strictly as a document, by the same validator.
// There is a channel back, so that nothing is put right in silence: what cannot
// be had is refused, and what was registered instead stands in the answer
// (DCR-02).
package register

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/clientauth"
	"github.com/bonafide-id/bonafide/internal/policy"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/internal/web"
	"github.com/bonafide-id/bonafide/oauth"
)

// Store is all that this package may read and write.
type Store interface {
	Client(ctx context.Context, id string) (store.Client, error)
	RegisterDynamic(ctx context.Context, c store.Client, most int, now time.Time, events ...audit.Event) error
	UpdateDynamic(ctx context.Context, c store.Client, oldRegistration string, now time.Time, events ...audit.Event) error
	RemoveDynamic(ctx context.Context, id, registration string, now time.Time, events ...audit.Event) error
}

// Directory says what the policy leaves to clients that register themselves.
type Directory interface {
	Dynamic() (policy.Decision, *policy.Set)
}

// Config configures a [Handler]. Store, Directory, Edge and Audit are required.
type Config struct {
	Store     Store
	Directory Directory
	Edge      *web.Edge
	Audit     *audit.Log
	Now       func() time.Time // nil is time.Now

	Life        time.Duration // from its last use, after which a registration is over; 0 is 30 days
	PerHour     int           // registrations from one network; 0 is 20
	MostPerHour int           // from all of them; 0 is 500
	Most        int           // that live at a time; 0 is 10,000

	// ApplicationType is that of a client that names none; "" is "web", as OpenID
	// Connect has it (DCR-03).
	ApplicationType string
	// IDTokenAlg is the algorithm of ID tokens here; a client that wants another is
	// refused.
	IDTokenAlg string
}

// Handler is the registration endpoint. It is safe for concurrent use.
type Handler struct {
	Config
	throttle *web.Throttle
}

// New checks the configuration.
func New(c Config) (*Handler, error) {
	if c.Store == nil || c.Directory == nil || c.Edge == nil || c.Audit == nil {
		return nil, errors.New("register: store, directory, edge and audit are required")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	for _, d := range []struct {
		v *int
		n int
	}{{&c.PerHour, 20}, {&c.MostPerHour, 500}, {&c.Most, 10_000}} {
		if *d.v == 0 {
			*d.v = d.n
		}
	}
	if c.Life == 0 {
		c.Life = 30 * 24 * time.Hour
	}
	if c.ApplicationType == "" {
		c.ApplicationType = typeWeb
	}
	return &Handler{Config: c, throttle: web.NewThrottle(time.Hour)}, nil
}

const (
	// Path is where clients register.
	Path = "/register"
	// prefix begins every id that is given here. It is no URL, so that no document
	// can ever stand behind it (DCR-05).
	prefix = "dyn-"
	// perNetwork bounds requests of the management endpoint, in an hour.
	perNetwork = 600
)

// Routes returns the routes of this package.
func (h *Handler) Routes() []web.Route {
	manage := web.Only(h.manage, http.MethodGet, http.MethodPut, http.MethodDelete)
	return []web.Route{
		{Pattern: h.Edge.Path(Path), Handler: h.Edge.API(web.Only(h.register, http.MethodPost))},
		{Pattern: h.Edge.Path(Path + "/{id}"), Handler: h.Edge.API(manage, http.MethodPut, http.MethodDelete)},
	}
}

// answer is a registration as its client sees it: what was registered, and what
// is told once or changes.
type answer struct {
	ClientID      string `json:"client_id"`
	Issued        int64  `json:"client_id_issued_at"`
	Secret        string `json:"client_secret,omitempty"`
	SecretExpires *int64 `json:"client_secret_expires_at,omitempty"` // with a secret only
	Token         string `json:"registration_access_token"`
	URI           string `json:"registration_client_uri"`
	metadata
}

// register makes a client of who asks, if there is room (DCR-01).
func (h *Handler) register(w http.ResponseWriter, r *http.Request) error {
	dec, set := h.Directory.Dynamic()
	if dec.Action == policy.Deny {
		return denied()
	}
	said, err := readBody(r)
	if err != nil {
		return err
	}
	m, err := h.examine(said, dec, set)
	if err != nil {
		return err
	}
	ctx, now := r.Context(), h.Now()
	wait := h.throttle.Take(now,
		web.Limit{Key: web.Everybody, Most: h.MostPerHour}, web.Limit{Key: web.Network(web.ClientIP(ctx)), Most: h.PerHour})
	if wait > 0 {
		return busy(http.StatusTooManyRequests, wait, "too many clients have registered in this hour; a client with a document needs no registration")
	}
	c := m.row(prefix + oauth.RandomToken(16))
	web.SetClient(ctx, c.ID)
	secret := ""
	if m.secret() {
		secret, c.SecretHash = clientauth.NewSecret()
	}
	var token string
	token, c.RegistrationHash = clientauth.NewSecret()
	c.Created, c.Expires = now, now.Add(h.Life)
	event := h.event(r, &c, "registered_itself", m.forAudit())
	switch err := h.Store.RegisterDynamic(ctx, c, h.Most, now, event); {
	case errors.Is(err, store.ErrBusy):
		return busy(http.StatusServiceUnavailable, time.Hour, "there is no room for more clients that register themselves; a client with a document needs no registration")
	case err != nil:
		return fmt.Errorf("register a client: %w", err)
	}
	h.Audit.Observe(event)
	return web.WriteJSON(w, http.StatusCreated, h.answer(&c, m, secret, token))
}

func denied() error {
	return oauth.Refuse(oauth.AccessDenied, "the policy of this server refuses clients that register themselves").Under("POL-01")
}

func busy(status int, wait time.Duration, why string) error {
	return &web.Refusal{Err: oauth.Refuse(oauth.TemporarilyUnavailable, "%s", why).Under("DCR-01"), Status: status, RetryAfter: wait}
}

// answer describes a registration to its client. secret and token are shown here
// and never again.
func (h *Handler) answer(c *store.Client, m *metadata, secret, token string) answer {
	a := answer{
		ClientID: c.ID, Issued: c.Created.Unix(), Secret: secret, Token: token,
		URI: h.Edge.URL(Path + "/" + c.ID), metadata: *m,
	}
	if m.secret() {
		at := c.Expires.Unix()
		a.SecretExpires = &at
	}
	return a
}

func (h *Handler) event(r *http.Request, c *store.Client, code string, data map[string]string) audit.Event {
	e := audit.Event{
		Time: h.Now(), Type: audit.TypeClient, Ref: web.Ref(r.Context()), Client: c.ID, Code: code, Data: data,
	}
	if ip := web.ClientIP(r.Context()); ip.IsValid() {
		e.IP = ip.String()
	}
	return e
}

// row is the client's row, without its secrets and times.
func (m *metadata) row(id string) store.Client {
	methods := []string{m.AuthMethod}
	if m.AuthMethod == oauth.MethodSecretBasic || m.AuthMethod == oauth.MethodSecretPost {
		methods = []string{oauth.MethodSecretBasic, oauth.MethodSecretPost} // libraries mix the two up, and the secret is the same
	}
	raw, _ := json.Marshal(m) // texts and lists of texts always encode
	return store.Client{
		ID: id, Source: store.SourceDCR, State: store.StateAllowed, Name: m.Name,
		RedirectURIs: m.RedirectURIs, GrantTypes: m.GrantTypes, AuthMethods: methods,
		Scope: m.Scope, HasScope: m.Scope != "", JWKS: m.JWKS, Metadata: raw,
	}
}

func (m *metadata) secret() bool { return strings.HasPrefix(m.AuthMethod, "client_secret_") }
