package authorize

import (
	_ "embed" // the pages
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bonafide-id/bonafide/internal/directory"
	"github.com/bonafide-id/bonafide/internal/policy"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/internal/web"
	"github.com/bonafide-id/bonafide/oauth"
)

//go:embed consent.html
var consentHTML string

//go:embed parts.html
var partsHTML string

//go:embed return.html
var returnHTML string

var (
	consentPage = withParts(web.Template("consent", consentHTML))
	returnPage  = web.Template("return", returnHTML)
)

// withParts gives a page what all pages have that ask a person.
func withParts(page *template.Template) *template.Template {
	template.Must(page.New("parts").Parse(partsHTML))
	return page
}

// consentView is what the consent page says, from top to bottom.
type consentView struct {
	Headline    hostView
	Name        string // self-declared; "" when the headline is all there is
	Logo        string
	Proof       proof
	Resource    string
	Account     string
	Have        []permission // agreed to before
	New         []permission
	Again       string // why somebody who agreed before is asked again
	Destination destination
	Changed     bool
	Warnings    []warning
	Action      string
	Transaction string
	Connections string
	Facts       []fact
	Links       []link
}

// proof is the line about the client's identity. Its class is one of the
// signals: proven, look, or none for an address that was checked but that nobody
// here knows.
type proof struct{ Class, Text string }

type permission struct {
	Title, Description string
	Tools              []string
	Particulars        []policy.DetailFact
}

// fact is a line of the details. Code is set in the letters of code.
type fact struct {
	Name, Text string
	Time       string // exact, for what Text says in words
	Code       bool
}

type link struct{ Text, URL, Host string }

// returnView is what the person reads when a client's request cannot go on and
// the client has not earned to be told without asking.
type returnView struct {
	What             string
	Client, Ref      string
	Code, Rule, Hint string
	Where            string
	Destination      destination
}

// plainly says what an error means to the person in front of it.
func plainly(code oauth.Code) string {
	switch code {
	case oauth.LoginRequired, oauth.ConsentRequired:
		return "The app asked us to answer without showing you anything, and that is not possible before you have agreed to it here."
	case oauth.UnmetAuthenticationNeeds:
		return "The app wants you to be signed in with more certainty than this server offers."
	case oauth.UnauthorizedClient:
		return "The app and this server have no way in common for the app to connect."
	case oauth.InvalidTarget:
		return "The app asked for a service that is not here, or not for it."
	case oauth.InvalidScope, oauth.InvalidDetails:
		return "The app asked for permissions that do not exist here, or not for it."
	}
	return "The app asked for something in a way we cannot accept."
}

// ask shows the consent page. The status is 200: nothing is wrong.
func (h *Handler) ask(w http.ResponseWriter, r *http.Request, a *attempt, q question) error {
	now := h.Now()
	q.Session, q.Shown = sessionDigest(q.user), a.shown()
	q.Nonce, q.Asked, q.Endings = oauth.RandomToken(32), now, q.before.Endings
	sealed, err := h.Sealer.Seal(purposeQuestion, now.Add(visitLife), q)
	if err != nil {
		return err
	}
	name := clientName(a.client, a.req.UILocales)
	v := consentView{
		Headline: a.headline(), Name: name, Logo: h.logoURL(r.Context(), a), Proof: a.proof(h.Edge.BrandName()),
		Resource: resourceName(a), Account: accountName(q.user.User),
		Destination: newDestination(a.redirect), Changed: q.changed,
		Warnings: a.warnings(&q, name, h.Edge.BrandName()),
		Action:   h.Edge.Path(pathConsent), Transaction: sealed,
		Facts: h.facts(r, a, now), Links: links(a.client),
	}
	if v.Headline.Main == name {
		v.Name = ""
	}
	if h.Connections != "" {
		v.Connections = h.Edge.Path(h.Connections)
	}
	v.Have, v.New = a.permissions(q.before)
	if len(v.New) == 0 && len(v.Have) > 0 {
		v.Again = again(a, &q.Visit)
	}
	return h.Edge.Render(w, r, http.StatusOK, web.Page{
		Title: "Allow " + v.Headline.String() + "?", Template: consentPage, Data: v, RedirectHost: a.redirect,
	})
}

// again says why a remembered consent does not answer for the person.
func again(a *attempt, v *visit) string {
	switch {
	case a.prompt.Has(promptConsent):
		return "You agreed to this before. The app asked us to check with you again."
	case selfMade(a.client):
		return "You agreed to this before. We ask each time, because nobody has checked who makes this app."
	case !provable(a.client):
		return "You agreed to this before. We ask each time, because an app on a computer cannot prove that it is still the same one."
	case !v.Silent:
		return "You agreed to this before. We ask again because another site sent you here."
	}
	return "You agreed to this before. For this app we ask each time."
}

// proof says how far the client's identity is established (CONS-03, CONS-08).
func (a *attempt) proof(brand string) proof {
	here := "this server"
	if brand != "" {
		here = brand
	}
	switch {
	case a.device != nil && a.device.Method == oauth.MethodNone:
		return proof{"look", "Cannot be proven: any program can use this name"}
	case selfMade(a.client):
		return proof{"look", "Registered itself; not checked by anyone"}
	case a.client.Source == directory.SourceRegistered:
		return proof{"proven", "Registered by " + here}
	case a.onThisComputer():
		return proof{"look", "Runs on this computer; cannot be proven"}
	case a.client.Decision.Development:
		return proof{"look", "In development; address checked, not known to " + here}
	case !vouched(a.client):
		return proof{"", "Address checked; not known to " + here}
	}
	return proof{"proven", "Identity checked at its own address"}
}

// permissions says in words what is asked for, with what it includes, apart from
// what the person has already agreed to while the client was the same. What is
// asked for beside scopes is always new: it is remembered by nobody (AUTHZ-26).
func (a *attempt) permissions(before store.Consent) (have, fresh []permission) {
	var granted oauth.Scopes
	if before.SecurityDigest == a.client.SecurityDigest {
		granted = a.resource.Expand(before.Scopes)
	}
	for _, name := range a.resource.Expand(a.scopes) {
		p := a.permission(name)
		if granted.Has(name) {
			have = append(have, p)
		} else {
			fresh = append(fresh, p)
		}
	}
	for _, d := range a.details.Entries {
		fresh = append(fresh, permission{Title: d.Type.Title, Description: d.Type.Description, Particulars: d.Facts})
	}
	return have, fresh
}

func (a *attempt) permission(name string) permission {
	if sc, ok := a.resource.Scope(name); ok {
		p := permission{Title: sc.Title, Description: sc.Description, Tools: sc.Tools}
		if p.Title == "" {
			p.Title = name
		}
		return p
	}
	if name == oauth.ScopeOfflineAccess {
		return permission{Title: "stay connected", Description: "Can go on when you are not there, until the connection is ended."}
	}
	return permission{Title: "know who you are", Description: "Learns which account here is yours."}
}

// clientName returns the self-declared name in the first language of ui_locales
// that the document has.
func clientName(c *directory.Client, locales string) string {
	if c.Doc == nil {
		return c.Name
	}
	for tag := range strings.SplitSeq(strings.ToLower(locales), " ") {
		for tag != "" {
			if n := c.Doc.Names[tag]; n != "" {
				return n
			}
			i := strings.LastIndexByte(tag, '-') // de-CH, then de
			tag = tag[:max(i, 0)]
		}
	}
	return c.Name
}

func resourceName(a *attempt) string {
	if a.resource.Name != "" {
		return a.resource.Name
	}
	return newDestination(a.resource.ID).Host.String()
}

func accountName(u store.User) string {
	if u.Email != "" {
		return u.Email
	}
	return u.Name
}

// facts are the details under the fold: exact, for those who want to know.
func (h *Handler) facts(r *http.Request, a *attempt, now time.Time) []fact {
	out := []fact{{Name: "App", Text: a.client.ID, Code: true}}
	if doc := a.client.Doc; doc != nil {
		out = append(out, fact{Name: "Checked", Text: ago(now.Sub(doc.Checked)), Time: doc.Checked.UTC().Format(time.RFC3339)})
		version := "new here"
		if a.client.Version > 0 {
			version = strconv.Itoa(a.client.Version)
		}
		out = append(out, fact{Name: "Version", Text: version})
	}
	proves := "with a key of its own"
	switch {
	case a.device != nil && a.device.Method == oauth.MethodNone:
		proves = "not at all"
	case slices.Contains(a.client.AuthMethods, oauth.MethodNone):
		proves = "by where the answer goes"
	case slices.ContainsFunc(a.client.AuthMethods, func(m string) bool { return strings.HasPrefix(m, "client_secret_") }):
		proves = "with a secret"
	}
	out = append(out, fact{Name: "Proves itself", Text: proves})
	if a.redirect != "" {
		out = append(out, fact{Name: "Answer to", Text: a.redirect, Code: true})
	}
	out = append(out,
		fact{Name: "Service", Text: a.resource.ID, Code: true},
		fact{Name: "Scopes", Text: a.scopes.String(), Code: true})
	if a.details.JSON != "" {
		out = append(out, fact{Name: "Particulars", Text: a.details.JSON, Code: true})
	}
	if len(a.dropped) > 0 {
		out = append(out, fact{Name: "Left out", Text: a.dropped.String(), Code: true})
	}
	return append(out, fact{Name: "Reference", Text: web.Ref(r.Context()), Code: true})
}

// links are the client's own pages, each with its host in sight (CONS-10).
func links(c *directory.Client) []link {
	if c.Doc == nil {
		return nil
	}
	var out []link
	for _, l := range []link{
		{Text: "Home page", URL: c.Doc.ClientURI}, {Text: "Privacy", URL: c.Doc.PolicyURI}, {Text: "Terms", URL: c.Doc.TOSURI},
	} {
		if u, err := url.Parse(l.URL); err == nil && u.Scheme == "https" && u.Host != "" {
			l.Host = newHostView(u.Hostname(), textRoom).String()
			out = append(out, l)
		}
	}
	return out
}

// ago is a span of time in words, rounded down.
func ago(d time.Duration) string {
	count := func(n int, unit string) string {
		if n == 1 {
			return "1 " + unit + " ago"
		}
		return fmt.Sprintf("%d %ss ago", n, unit)
	}
	switch {
	case d < time.Minute:
		return "just now"
	case d < time.Hour:
		return count(int(d/time.Minute), "minute")
	case d < 48*time.Hour:
		return count(int(d/time.Hour), "hour")
	}
	return count(int(d/(24*time.Hour)), "day")
}
