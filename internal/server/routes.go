package server

import (
	"context"
	"html/template"
	"net/http"
	"time"

	"github.com/bonafide-id/bonafide/internal/authorize"
	"github.com/bonafide-id/bonafide/internal/clientauth"
	"github.com/bonafide-id/bonafide/internal/token"
	"github.com/bonafide-id/bonafide/internal/web"
)

// buildEndpoints builds the rooms that people and clients talk to, and mounts
// every route of the server.
func (s *Server) buildEndpoints(master []byte) (err error) {
	cfg := s.cfg
	sealer := web.NewSealer(web.DeriveKey(master, "what travels through browsers"))
	if err := s.buildSignIn(sealer); err != nil {
		return err
	}
	clients, err := s.proofs(clientauth.Config{
		Issuer: cfg.Issuer, Directory: s.directory, Spender: s.store, Now: s.opts.Now, Audit: s.audit,
	}, master)
	if err != nil {
		return err
	}
	auth, err := clientauth.New(clients)
	if err != nil {
		return err
	}
	s.clients = auth
	if s.authorize, err = authorize.New(authorize.Config{
		Issuer: cfg.Issuer, Directory: s.directory, Store: s.store, SignIn: s.login,
		Edge: s.edge, Sealer: sealer, Audit: s.audit, Connections: "/connections", ACRs: s.login.ACRs(),
		FetchBeforeSignIn: cfg.CIMD.Fetch == "at_once", RefuseUnknownScopes: cfg.UnknownScopes == "refuse",
		CodeLife: cfg.Tokens.Code, Clients: auth, RequirePAR: cfg.PAR.Required, PushLife: cfg.PAR.Life, Hints: s.keys, Certificates: cfg.MTLS.On(),
		Device: s.deviceFlow(master),
		Logger: s.log, Now: s.opts.Now,
	}); err != nil {
		return err
	}
	trusted, err := s.trusted()
	if err != nil {
		return err
	}
	assertions, err := cfg.IDJAG.trusted(cfg.path, trusted, s.opts.Now)
	if err != nil {
		return err
	}
	if s.token, err = token.New(token.Config{
		Issuer: cfg.Issuer, Clients: auth, Grants: s.store, Denials: s.store, Keys: s.keys,
		Policy: s.directory.Policy, Audit: s.audit, Now: s.opts.Now, Access: cfg.Tokens.Access, People: s.store, Devices: s.deviceCodes(),
		Named: s.directory.Named, IDJAG: assertions, Identities: s.store, Exchange: cfg.Exchange.rules(),
		Idle: cfg.Tokens.RefreshIdle, Absolute: cfg.Tokens.RefreshAbsolute,
		TokenProof: auth.ProofOfToken, Certificate: auth.CertificateThumbprint,
		Grace: max(cfg.Tokens.RefreshGrace, time.Nanosecond), // 0 would mean the default there; the operator wants none
	}); err != nil {
		return err
	}
	if err := s.buildRegistration(); err != nil {
		return err
	}
	s.mount()
	return nil
}

// mount puts every route of the server on one screen.
func (s *Server) mount() {
	e, mux := s.edge, http.NewServeMux()
	get := func(h web.Handler) web.Handler { return web.Only(h, http.MethodGet, http.MethodHead) }

	for _, p := range metadataPaths(s.cfg.Issuer) { // RFC 8414, OpenID Connect Discovery
		mux.Handle(p, e.Public(get(s.serveMetadata)))
	}
	mux.Handle(e.Path("/jwks"), e.Public(get(s.serveJWKS)))

	post := func(h web.Handler) http.Handler { return e.API(web.Only(h, http.MethodPost)) }
	mux.Handle(e.Path("/token"), post(s.token.Token))
	mux.Handle(e.Path("/revoke"), post(s.token.Revoke))
	mux.Handle(e.Path("/introspect"), post(s.token.Introspect))
	if s.challenges() {
		mux.Handle(e.Path("/challenge"), post(s.clients.Challenge))
	}
	mux.Handle(e.Path("/userinfo"), e.API(web.Only(s.token.Userinfo, http.MethodGet, http.MethodPost)))

	var routes []web.Route
	routes = append(routes, s.authorize.Routes()...) // /authorize, /authorize/resume, /par, /consent, /logo, /device…
	routes = append(routes, s.login.Routes()...)     // /login, /login/callback/…, /logout, /connections
	if s.register != nil {
		routes = append(routes, s.register.Routes()...) // /register, /register/…
	}
	routes = append(routes, e.Routes()...) // /assets/...
	for _, r := range routes {
		mux.Handle(r.Pattern, r.Handler)
	}

	mux.Handle(e.Path("/healthz"), e.API(get(s.healthz)))
	mux.Handle(e.Path("/readyz"), e.API(get(s.readyz)))
	mux.Handle(e.Path("/")+"{$}", e.Page(get(s.home)))
	mux.Handle("/", e.NotFound())
	s.mux = mux
}

// Handler returns the server as an http.Handler.
func (s *Server) Handler() http.Handler { return s.mux }

// healthz says that the process answers.
func (s *Server) healthz(w http.ResponseWriter, _ *http.Request) error {
	return web.WriteJSON(w, http.StatusOK, map[string]string{"status": "ok"})
}

// readyWithin is how long the store may take to show that it is there.
const readyWithin = 2 * time.Second

// readyz says whether requests should be sent here: not while draining, and not
// while the store does not answer.
func (s *Server) readyz(w http.ResponseWriter, r *http.Request) error {
	state := map[string]any{"status": "ready", "cimd": s.directory.Enabled(), "egress_proxy": s.cfg.CIMD.Egress.Proxy != ""}
	if s.draining.Load() {
		state["status"] = "draining"
		return web.WriteJSON(w, http.StatusServiceUnavailable, state)
	}
	ctx, stop := context.WithTimeout(r.Context(), readyWithin)
	defer stop()
	if _, err := s.store.SigningKeys(ctx); err != nil {
		s.log.Error("not ready: the store does not answer", "error", err)
		state["status"], state["store"] = "degraded", "does not answer"
		return web.WriteJSON(w, http.StatusServiceUnavailable, state)
	}
	return web.WriteJSON(w, http.StatusOK, state)
}

var homePage = web.Template("home", `<h1>{{if .Brand}}{{.Brand}}{{else}}Sign-in server{{end}}</h1>
<p class="lead">This is where apps ask for your permission. There is nothing to do here: start from the app that you want to connect, and it will bring you back.</p>
<p><a href="{{.Connections}}">My connections</a> shows the apps that can act for you.</p>
<details class="fold">
<summary>For administrators and developers</summary>
<dl class="facts">
<div><dt>Issuer</dt><dd><code>{{.Issuer}}</code></dd></div>
<div><dt>Metadata</dt><dd><a href="{{.Metadata}}">{{.Metadata}}</a></dd></div>
</dl>
</details>`)

// home is what a person sees who comes here without an errand.
func (s *Server) home(w http.ResponseWriter, r *http.Request) error {
	return s.edge.Render(w, r, http.StatusOK, web.Page{
		Title: "Sign-in server", Template: homePage,
		Data: struct {
			Brand, Issuer, Connections string
			Metadata                   template.URL
		}{s.cfg.Brand.Name, s.cfg.Issuer, s.edge.Path("/connections"), template.URL(metadataPaths(s.cfg.Issuer)[0])},
	})
}
