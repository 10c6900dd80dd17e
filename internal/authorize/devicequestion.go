package authorize

import (
	_ "embed" // the pages
	"html/template"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/login"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/internal/web"
	"github.com/bonafide-id/bonafide/oauth"
)

//go:embed device.html
var entryHTML string

//go:embed deviceconfirm.html
var confirmHTML string

//go:embed devicedone.html
var doneHTML string

// The confirmation page uses the parts of the consent page.
var (
	entryPage   = web.Template("device", entryHTML)
	confirmPage = template.Must(template.Must(consentPage.Clone()).New("device confirmation").Parse(confirmHTML))
	donePage    = web.Template("device done", doneHTML)
)

// entryView is what the page says where a code is typed.
type entryView struct {
	Action, Token, Account, Issuer string
	Typed, Problem, Bad            string
	Brought                        bool // the code came with the address
}

// confirmView is what the confirmation page says, beside what a consent page says.
type confirmView struct {
	consentView
	Code      string
	Started   string // "2 minutes ago"
	Time      string // the same as a time of day
	Clock     string // and for programs
	From      string // the address of the device; "" when it is not known
	SamePlace bool   // it is in the network of this browser
	Problem   string
}

// doneView is what stands at the end.
type doneView struct {
	Allowed     bool
	Headline    hostView
	Resource    string
	Connections string
}

// deviceQuestion is what the confirmation page asks. Like a [question] it travels
// sealed in the form and can be answered once, in the browser and the session to
// which it was shown.
type deviceQuestion struct {
	Pick    pick      `json:"p"`
	Session string    `json:"s"`
	Shown   string    `json:"d"`
	Nonce   string    `json:"n"`
	Asked   time.Time `json:"t"`
	Endings int64     `json:"e"`

	user    *login.User
	changed bool
	problem string
}

// outcome is what the last page says.
type outcome struct {
	Allowed  bool   `json:"a"`
	Client   string `json:"c"`
	Name     string `json:"n"`
	Resource string `json:"r"`
}

// askDevice shows the confirmation page: who asks, for what, since when and from
// where, and the code to compare (DEV-05).
func (h *Handler) askDevice(w http.ResponseWriter, r *http.Request, q deviceQuestion) error {
	now := h.Now()
	d, err := h.device.Devices.FindUserCode(r.Context(), userCodeHash(h.device.CodeKey, q.Pick.Code), now)
	if gone(err) {
		return deviceGone(err)
	}
	if err != nil {
		return err
	}
	web.SetClient(r.Context(), d.ClientID)
	a, err := h.examineDevice(r.Context(), &d, q.user)
	if err != nil {
		return err
	}
	if done, err := h.asStrong(w, r, a, &q); done || err != nil {
		return err
	}
	before, err := h.remembered(r.Context(), a, q.user)
	if err != nil {
		return err
	}
	q.Session, q.Shown = sessionDigest(q.user), a.shown()
	q.Nonce, q.Asked, q.Endings = oauth.RandomToken(32), now, before.Endings
	sealed, err := h.Sealer.Seal(purposeDevice, now.Add(visitLife), q)
	if err != nil {
		return err
	}
	name := clientName(a.client, "")
	v := confirmView{
		consentView: consentView{
			Headline: a.headline(), Name: name, Logo: h.logoURL(r.Context(), a), Proof: a.proof(h.Edge.BrandName()),
			Resource: resourceName(a), Account: accountName(q.user.User), Changed: q.changed,
			Warnings: a.deviceWarnings(&question{before: before}, name, h.Edge.BrandName()),
			Action:   h.Edge.Path(pathDeviceConfirm), Transaction: sealed, Facts: h.facts(r, a, now), Links: links(a.client),
		},
		Code: showUserCode(q.Pick.Code), Started: ago(now.Sub(d.Created)), Clock: d.Created.UTC().Format(time.RFC3339), Time: d.Created.UTC().Format("15:04 MST"),
		From: d.IP, SamePlace: samePlace(d.IP, web.ClientIP(r.Context())), Problem: q.problem,
	}
	if v.Headline.Main == name {
		v.Name = ""
	}
	if h.Connections != "" {
		v.Connections = h.Edge.Path(h.Connections)
	}
	v.Have, v.New = a.permissions(before)
	status := http.StatusOK
	if q.problem != "" {
		status = http.StatusUnprocessableEntity
	}
	return h.Edge.Render(w, r, status, web.Page{Title: "Connect " + v.Headline.String() + "?", Template: confirmPage, Data: v})
}

// samePlace reports whether the device and the browser are in one network, as
// far as their addresses tell.
func samePlace(device string, browser netip.Addr) bool {
	ip, err := netip.ParseAddr(device)
	return err == nil && browser.IsValid() && web.Network(ip) == web.Network(browser)
}

// deviceWarnings are those of the consent page with the one that every device
// has: whoever holds the code gets in, so it has to be the person's own (DEV-05).
func (a *attempt) deviceWarnings(ask *question, name, brand string) []warning {
	out := []warning{{
		True: "Did you start this on your device?",
		Do:   "If somebody sent you this code or a link, press Cancel: they would get into your account.",
	}}
	for _, w := range []func(*question, string, string) *warning{a.warnName, a.warnSelfMade, a.warnDevelopment, a.warnAlphabet, a.warnChanged, a.warnStale, a.warnFirst, a.warnTest} {
		found := w(ask, name, brand)
		switch {
		case found == nil || len(out) == maxWarnings:
		case found.Stop:
			out = append([]warning{*found}, out...)
		default:
			out = append(out, *found)
		}
	}
	return out
}

// answerDevice reads the person's decision, under the rules of [Handler.answer].
func (h *Handler) answerDevice(w http.ResponseWriter, r *http.Request) error {
	p, err := web.ParseBody(r)
	if err != nil {
		return err
	}
	var q deviceQuestion
	if err := h.Sealer.Open(purposeDevice, p.Form["transaction"], h.Now(), &q); err != nil {
		return deviceOutdated(err)
	}
	if q.user, err = h.SignIn.Current(r); err != nil {
		return err
	}
	if q.user == nil {
		return deviceOutdated(errOtherSession)
	}
	anew := q.Session != sessionDigest(q.user)
	if anew && q.Pick.Browser != h.browser(w, r) {
		return deviceOutdated(errOtherSession)
	}
	choice := p.Form["decision"]
	switch choice {
	case answerAllow, answerDeny:
	case answerSwitch:
		return h.signInFor(w, r, q.Pick.Code, login.ReasonSwitch)
	default:
		return web.Refuse(http.StatusBadRequest, oauth.Refuse(oauth.InvalidRequest, "decision must be allow or deny"))
	}
	d, err := h.device.Devices.FindUserCode(r.Context(), userCodeHash(h.device.CodeKey, q.Pick.Code), h.Now())
	if gone(err) {
		return deviceGone(err)
	}
	if err != nil {
		return err
	}
	web.SetClient(r.Context(), d.ClientID)
	if choice == answerDeny && !anew { // whatever became of the client: no is no
		return h.denyDevice(w, r, &d, &q)
	}
	a, err := h.examineDevice(r.Context(), &d, q.user)
	if err != nil {
		return err
	}
	if done, err := h.asStrong(w, r, a, &q); done || err != nil {
		return err
	}
	switch {
	case anew, q.Shown != a.shown():
		q.changed = true
		return h.askDevice(w, r, q)
	case p.Form["started"] != "yes":
		q.problem = "Please confirm first that you started this yourself. If you did not, press Cancel."
		return h.askDevice(w, r, q)
	}
	return h.approveDevice(w, r, a, &q)
}

// asStrong sends the person to sign in, if what the device asked for about the
// sign-in is not met by the one they have, and reports whether it did. What cannot
// be met by a new one is refused, rather than answered by a weaker token (AUTHZ-24).
func (h *Handler) asStrong(w http.ResponseWriter, r *http.Request, a *attempt, q *deviceQuestion) (done bool, err error) {
	if reason, needed := a.mustSignIn(q.user, a.device.Created, h.Now()); needed {
		return true, h.signInWith(w, r, q.Pick.Code, a.back(reason))
	}
	if !a.acrMet(q.user) {
		return false, deviceRefused(a.client.ID, unmet())
	}
	return false, nil
}

// approveDevice turns a yes into a grant that the device can fetch, in one commit.
func (h *Handler) approveDevice(w http.ResponseWriter, r *http.Request, a *attempt, q *deviceQuestion) error {
	now, s := h.Now(), q.user.Session
	grant := store.Grant{
		ID: store.NewID(now), UserID: q.user.User.ID, ClientID: a.client.ID, Resource: a.resource.ID, Scopes: a.scopes,
		SecurityDigest: a.client.SecurityDigest, AuthMethods: a.client.AuthMethods,
		AuthTime: s.AuthTime, ACR: s.ACR, AMR: s.AMR, SID: s.SID, Created: now, Kind: store.KindDevice,
		Details: a.details.JSON, InstanceJKT: a.device.InstanceJKT,
	}
	client, document := a.client.Rows(now)
	e := h.event(r, audit.Event{
		Type: audit.TypeConsent, Client: grant.ClientID, User: grant.UserID, Resource: grant.Resource, Grant: grant.ID,
		Data: map[string]string{"scope": grant.Scopes.String(), "digest": grant.SecurityDigest, "device": a.device.IP},
	})
	err := h.device.Devices.ApproveDevice(r.Context(), store.DeviceAnswer{
		UserCode: a.device.UserCode,
		Answer: store.Answer{
			Nonce: store.HashOf(q.Nonce), NonceExpires: q.Asked.Add(visitLife), Endings: q.Endings, Session: s.Hash,
			Client: client, Document: document, Grant: grant, Remember: a.details.JSON == "", Events: []audit.Event{e},
		},
	}, now)
	if err != nil {
		return answerFailed(err)
	}
	h.Audit.Observe(e)
	return h.toDone(w, outcome{Allowed: true, Client: a.client.Host, Name: a.client.Name, Resource: resourceName(a)})
}

// denyDevice records a no, which the device learns at its next poll.
func (h *Handler) denyDevice(w http.ResponseWriter, r *http.Request, d *store.Device, q *deviceQuestion) error {
	e := h.event(r, audit.Event{
		Type: audit.TypeConsentDenied, Client: d.ClientID, User: q.user.User.ID, Resource: d.Resource, Code: string(oauth.AccessDenied),
		Data: map[string]string{"scope": d.Scopes.String(), "device": d.IP},
	})
	err := h.device.Devices.DenyDevice(r.Context(), d.UserCode, store.Denial{
		Nonce: store.HashOf(q.Nonce), NonceExpires: q.Asked.Add(visitLife), Events: []audit.Event{e},
	}, h.Now())
	if err != nil {
		return answerFailed(err)
	}
	h.Audit.Observe(e)
	return h.toDone(w, outcome{})
}

// toDone leads to the last page, which can be read again without answering again.
func (h *Handler) toDone(w http.ResponseWriter, o outcome) error {
	sealed, err := h.Sealer.Seal(purposeOutcome, h.Now().Add(visitLife), o)
	if err != nil {
		return err
	}
	web.SeeOther(w, h.Edge.Path(pathDeviceDone)+"?tx="+url.QueryEscape(sealed))
	return nil
}

// deviceDone says how it ended, and that the person can go back to the device.
func (h *Handler) deviceDone(w http.ResponseWriter, r *http.Request) error {
	p, err := web.ParseQuery(r)
	if err != nil {
		return err
	}
	var o outcome
	if err := h.Sealer.Open(purposeOutcome, p.Form["tx"], h.Now(), &o); err != nil {
		return deviceOutdated(err)
	}
	v := doneView{Allowed: o.Allowed, Resource: o.Resource, Headline: hostView{Main: o.Name, Name: true}}
	if o.Client != "" {
		v.Headline = newHostView(o.Client, headlineRoom)
	}
	if h.Connections != "" {
		v.Connections = h.Edge.Path(h.Connections)
	}
	title := "Nothing was connected"
	if o.Allowed {
		title = "Connected"
	}
	return h.Edge.Render(w, r, http.StatusOK, web.Page{Title: title, Template: donePage, Data: v})
}
