package authorize

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/login"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/internal/web"
	"github.com/bonafide-id/bonafide/oauth"
)

// purposes of what the device pages seal.
const (
	purposeEntry   = "authorize: device entry"
	purposeBrought = "authorize: device code brought along"
	purposePick    = "authorize: device pick"
	purposeDevice  = "authorize: device question"
	purposeOutcome = "authorize: device outcome"
)

// pick is a code on its way through a person's browser: as they brought it along
// through the sign-in, which anybody can have sealed and nothing was looked up
// for, or as they picked a device with it. The two are sealed apart, for only the
// second was counted as a guess (DV-03).
type pick struct {
	Code    string `json:"c"` // as typed, or of a device and without its dash
	Browser string `json:"b"` // digest of the browser cookie
}

// enterCode serves the page where a person types the code of a device. A code in
// the address fills the form and no more: nothing is looked up before the person
// is signed in and presses the button (DEV-05), so that only an account can
// guess, and every guess has one.
func (h *Handler) enterCode(w http.ResponseWriter, r *http.Request) error {
	if r.Method == http.MethodPost {
		return h.codeEntered(w, r)
	}
	p, err := web.ParseQuery(r)
	if err != nil {
		return err
	}
	typed := p.Form["user_code"]
	if tx := p.Form["tx"]; tx != "" {
		var k pick
		if h.Sealer.Open(purposeBrought, tx, h.Now(), &k) == nil && k.Browser == h.browser(w, r) {
			typed = k.Code
		}
	}
	user, err := h.SignIn.Current(r)
	if err != nil {
		return err
	}
	if user == nil {
		return h.signInFor(w, r, typed, login.ReasonNone)
	}
	return h.showEntry(w, r, user, entryView{Typed: typed}, http.StatusOK)
}

// signInFor sends the person to the sign-in page and back to the form, with what
// they brought along in it.
func (h *Handler) signInFor(w http.ResponseWriter, r *http.Request, typed string, why login.Reason) error {
	return h.signInWith(w, r, typed, login.Return{Reason: why})
}

// signInWith is signInFor with what the sign-in has to be.
func (h *Handler) signInWith(w http.ResponseWriter, r *http.Request, typed string, back login.Return) error {
	if len(typed) > maxTyped {
		typed = ""
	}
	sealed, err := h.Sealer.Seal(purposeBrought, h.Now().Add(visitLife), pick{typed, h.browser(w, r)})
	if err != nil {
		return err
	}
	back.Path, back.Sealed = pathDevice, sealed
	return h.SignIn.Redirect(w, r, back)
}

// showEntry writes the form. It can be sent in this session only (DEV-08).
func (h *Handler) showEntry(w http.ResponseWriter, r *http.Request, user *login.User, v entryView, status int) error {
	token, err := h.Sealer.Seal(purposeEntry, h.Now().Add(visitLife), sessionDigest(user))
	if err != nil {
		return err
	}
	v.Action, v.Token, v.Account, v.Issuer = h.Edge.Path(pathDevice), token, accountName(user.User), h.Edge.Host()
	if code, ok := parseUserCode(v.Typed); ok {
		v.Typed, v.Brought = showUserCode(code), v.Problem == ""
	} else if len(v.Typed) > maxTyped {
		v.Typed = ""
	}
	return h.Edge.Render(w, r, status, web.Page{Title: "Connect a device", Template: entryPage, Data: v})
}

// codeEntered reads the form, and looks the code up if there is room for one more
// guess.
func (h *Handler) codeEntered(w http.ResponseWriter, r *http.Request) error {
	p, err := web.ParseBody(r)
	if err != nil {
		return err
	}
	typed := p.Form["user_code"]
	user, err := h.SignIn.Current(r)
	if err != nil {
		return err
	}
	if user == nil {
		return h.signInFor(w, r, typed, login.ReasonNone)
	}
	var session string
	if err := h.Sealer.Open(purposeEntry, p.Form["form"], h.Now(), &session); err != nil || session != sessionDigest(user) {
		return h.showEntry(w, r, user, entryView{Typed: typed,
			Problem: "This page was open for too long, or you signed in again meanwhile. Please press Continue once more."}, http.StatusBadRequest)
	}
	if p.Form["decision"] == answerSwitch {
		return h.signInFor(w, r, typed, login.ReasonSwitch)
	}
	code, ok := parseUserCode(typed)
	if !ok { // no device can show it: nothing is looked up, and nothing counted
		return h.showEntry(w, r, user, entryView{Typed: typed, Bad: "true",
			Problem: "A code has eight letters, without A, E, I, O, U and Y and without digits. Please compare it with your device."}, http.StatusUnprocessableEntity)
	}
	_, wait, err := h.guess(r, user, code)
	switch {
	case err != nil:
		return err
	case wait > 0:
		w.Header().Set("Retry-After", strconv.Itoa(int((wait+time.Second-1)/time.Second)))
		return h.showEntry(w, r, user, entryView{Typed: typed,
			Problem: "There were many wrong codes in a short time. Please wait " + within(wait) + ", then try again."}, http.StatusTooManyRequests)
	case wait < 0:
		return h.showEntry(w, r, user, entryView{Typed: typed, Bad: "true",
			Problem: fmt.Sprintf("No device is waiting with this code. Compare it with your device, or get a new code there: each works once, for %s.", within(h.device.Life))},
			http.StatusUnprocessableEntity)
	}
	sealed, err := h.Sealer.Seal(purposePick, h.Now().Add(visitLife), pick{code, h.browser(w, r)})
	if err != nil {
		return err
	}
	web.SeeOther(w, h.Edge.Path(pathDeviceConfirm)+"?tx="+url.QueryEscape(sealed))
	return nil
}

// guess looks a code up that somebody typed. Every wrong one counts for the
// account, for the network and for all (DV-03); what counts is the guess, however
// it was spelled (DV-05). This process counts in advance, which keeps a crowd from
// the store; the store counts for all replicas together. A positive wait means that
// nothing was looked up, a negative one that no device waits with the code.
func (h *Handler) guess(r *http.Request, user *login.User, code string) (*store.Device, time.Duration, error) {
	counted := []web.Limit{
		{Key: "account " + user.User.ID, Most: wrongPerAccount},
		{Key: "from " + web.Network(web.ClientIP(r.Context())), Most: wrongPerSource},
		{Key: web.Everybody, Most: wrongInAll},
	}
	note := func(what string) {
		h.Audit.Note(h.event(r, audit.Event{Type: audit.TypeRefusal, User: user.User.ID, Rule: "DEV-03", Code: what}))
	}
	now := h.now()
	if wait := h.device.guesses.Take(now, counted...); wait > 0 {
		note("throttled")
		return nil, wait, nil
	}
	key := h.device.CodeKey
	g := store.Guess{UserCode: userCodeHash(key, code), Window: h.device.Life}
	for _, l := range counted {
		g.Against = append(g.Against, store.Allowance{Key: userCodeHash(key, l.Key), Most: l.Most})
	}
	d, wait, err := h.device.Devices.GuessUserCode(r.Context(), g, now)
	switch {
	case errors.Is(err, store.ErrTooFast):
		h.device.guesses.GiveBack(counted...)
		note("throttled")
		return nil, wait, nil
	case gone(err):
		note("wrong user code")
		return nil, -1, nil
	case err != nil:
		return nil, 0, err
	}
	h.device.guesses.GiveBack(counted...)
	return &d, 0, nil
}

// gone reports whether a device waits no more, or never did.
func gone(err error) bool {
	return errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrExpired) || errors.Is(err, store.ErrSpent)
}

// confirmDevice serves the page that asks whether a device may connect.
func (h *Handler) confirmDevice(w http.ResponseWriter, r *http.Request) error {
	if r.Method == http.MethodPost {
		return h.answerDevice(w, r)
	}
	p, err := web.ParseQuery(r)
	if err != nil {
		return err
	}
	var k pick
	if err := h.Sealer.Open(purposePick, p.Form["tx"], h.Now(), &k); err != nil {
		return deviceOutdated(err)
	}
	user, err := h.SignIn.Current(r)
	if err != nil {
		return err
	}
	if user == nil {
		return h.signInFor(w, r, k.Code, login.ReasonNone)
	}
	if k.Browser != h.browser(w, r) {
		// Somebody passed the address on: it is worth no more than the code in it.
		web.SeeOther(w, h.Edge.Path(pathDevice)+"?user_code="+url.QueryEscape(k.Code))
		return nil
	}
	return h.askDevice(w, r, deviceQuestion{Pick: k, user: user})
}

// within says how long, as a person would.
func within(d time.Duration) string {
	switch s := int((d + time.Second - 1) / time.Second); {
	case s <= 1:
		return "a second"
	case s <= 90:
		return strconv.Itoa(s) + " seconds"
	default:
		return strconv.Itoa((s+59)/60) + " minutes"
	}
}

// deviceOutdated is outdated for the pages about devices.
func deviceOutdated(cause error) error {
	return &web.Refusal{
		Err:    oauth.Refuse(oauth.AccessDenied, "the page was not answered in time, or not in the browser and session to which it was shown").Under("DEV-08").Because(cause),
		Status: http.StatusForbidden,
		Title:  "This page is no longer valid",
		What:   "It was open for too long, or it was opened in another browser or by another account. Nothing was shared.",
		Turn:   "You", Next: "Start again on your device: it will show a new code.",
	}
}

// deviceGone says that the code has had its time.
func deviceGone(cause error) error {
	return &web.Refusal{
		Err:    oauth.Refuse(oauth.AccessDenied, "the user code has expired or was answered before").Under("DEV-04").Because(cause),
		Status: http.StatusConflict,
		Title:  "This code is no longer valid",
		What:   "It was answered already, or it is too old. Nothing more was shared.",
		Turn:   "You", Next: "If your device is still waiting, start again there: it will show a new code.",
	}
}
