package login

import (
	"cmp"
	"context"
	_ "embed" // the page
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/bonafide-id/bonafide/internal/audit"
	"github.com/bonafide-id/bonafide/internal/policy"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/internal/web"
	"github.com/bonafide-id/bonafide/oauth"
)

// Connected is what the page of connections may do: list what a person has
// agreed to, and end it.
type Connected interface {
	Grants(ctx context.Context, userID, after string, limit int) ([]store.Grant, error)
	EndGrantsOf(ctx context.Context, w store.Whose, reason string, now time.Time, events ...audit.Event) (int, error)
}

const (
	pathConnections    = "/connections"
	purposeConnections = "connections form"

	mostGrants  = 5000 // of one person that are looked at
	mostClients = 200  // that are shown
)

//go:embed connections.html
var connectionsHTML string

var connectionsPage = web.Template("connections", connectionsHTML)

// Connection is what one client holds of one person.
type Connection struct {
	ClientID string
	Host     string // of the client_id; the client_id itself where that is no URL
	Grants   int
	Since    time.Time // of the oldest grant
	Used     time.Time // when anything of it was used last
	Access   []Access
}

// Access is what a client may do at one resource.
type Access struct {
	Resource string
	Scopes   oauth.Scopes
}

// ConnectionsOf sums up live grants by client, the one that was used last first.
func ConnectionsOf(grants []store.Grant) []Connection {
	at := map[string]int{}
	var out []Connection
	for _, g := range grants {
		i, ok := at[g.ClientID]
		if !ok {
			i = len(out)
			at[g.ClientID] = i
			out = append(out, Connection{ClientID: g.ClientID, Host: hostOf(g.ClientID), Since: g.Created})
		}
		c := &out[i]
		c.Grants++
		if g.Created.Before(c.Since) {
			c.Since = g.Created
		}
		for _, used := range []time.Time{g.Created, g.LastUsed} {
			if used.After(c.Used) {
				c.Used = used
			}
		}
		j := slices.IndexFunc(c.Access, func(a Access) bool { return a.Resource == g.Resource })
		if j < 0 {
			j = len(c.Access)
			c.Access = append(c.Access, Access{Resource: g.Resource})
		}
		c.Access[j].Scopes = c.Access[j].Scopes.Or(g.Scopes)
	}
	slices.SortFunc(out, func(a, b Connection) int {
		if c := b.Used.Compare(a.Used); c != 0 {
			return c
		}
		return cmp.Compare(a.ClientID, b.ClientID)
	})
	return out
}

func hostOf(clientID string) string {
	if u, err := url.Parse(clientID); err == nil && u.Host != "" {
		return strings.ToLower(u.Host)
	}
	return clientID
}

type connectionsView struct {
	Action, SignOut, Token, Username, Ended string
	Minutes, More                           int
	Connections                             []connectionView
}

type connectionView struct {
	ID, ClientID, Host, Name string
	Since, Used              string // in words
	SinceExact, UsedExact    string
	Access                   []accessView
}

type accessView struct {
	Resource string
	Scopes   []string
}

// serveConnections shows a person what they have connected, and ends one
// connection or all of them (CONS-14).
func (l *Login) serveConnections(w http.ResponseWriter, r *http.Request) error {
	user, err := l.Current(r)
	if err != nil {
		return err
	}
	if user == nil {
		return l.Redirect(w, r, Return{Path: pathConnections})
	}
	ended := ""
	if r.Method == http.MethodPost {
		p, err := web.ParseBody(r)
		if err != nil {
			return err
		}
		if !l.bound(purposeConnections, p.Form["form"], l.cfg.Edge.Cookie(r, sessionCookie)) {
			return formTooOld()
		}
		if ended, err = l.endConnections(r, user, p.Form["client"], p.Form["all"] == "yes"); err != nil {
			return err
		}
	}
	return l.showConnections(w, r, user, ended)
}

func formTooOld() error {
	return &web.Refusal{
		Err: oauth.Refuse(oauth.InvalidRequest, "the form was not made for this session, or is too old").Under("CONS-14"), Status: http.StatusForbidden,
		Title: "This page is no longer valid",
		What:  "It was open for too long, or somebody else has signed in meanwhile. Nothing was changed.",
		Turn:  "You",
		Next:  "Open My connections again.",
	}
}

// endConnections ends what the form names and returns it in words.
func (l *Login) endConnections(r *http.Request, u *User, client string, all bool) (string, error) {
	whose, what := store.Whose{UserID: u.User.ID, ClientID: client}, hostOf(client)
	switch {
	case all:
		whose.ClientID, what = "", "all apps"
	case client == "":
		return "", oauth.Refuse(oauth.InvalidRequest, "name a client, or all of them").Under("CONS-14")
	}
	e := audit.Event{
		Time: l.cfg.Now(), Type: audit.TypeRevocation, Ref: web.Ref(r.Context()), User: u.User.ID, Client: whose.ClientID,
		IP: web.ClientIP(r.Context()).String(), Code: "ended_by_person",
	}
	if _, err := l.cfg.Connected.EndGrantsOf(r.Context(), whose, "ended by the person", l.cfg.Now(), e); err != nil {
		return "", fmt.Errorf("end connections: %w", err)
	}
	l.cfg.Audit.Observe(e)
	return what, nil
}

// grantsOf returns the live grants of a person.
func (l *Login) grantsOf(ctx context.Context, userID string) ([]store.Grant, error) {
	const page = 500
	var out []store.Grant
	for after := ""; len(out) < mostGrants; {
		grants, err := l.cfg.Connected.Grants(ctx, userID, after, page)
		if err != nil {
			return nil, fmt.Errorf("list connections: %w", err)
		}
		out = append(out, grants...)
		if len(grants) < page {
			break
		}
		after = grants[len(grants)-1].ID
	}
	return out, nil
}

func (l *Login) showConnections(w http.ResponseWriter, r *http.Request, u *User, ended string) error {
	e, now := l.cfg.Edge, l.cfg.Now()
	grants, err := l.grantsOf(r.Context(), u.User.ID)
	if err != nil {
		return err
	}
	list := ConnectionsOf(grants)
	v := connectionsView{
		Action: e.Path(pathConnections), SignOut: e.Path(pathLogout), Username: u.User.Name, Ended: ended,
		Minutes: int((l.cfg.AccessLife + time.Minute - 1) / time.Minute), More: max(0, len(list)-mostClients),
	}
	if v.Token, err = l.cfg.Sealer.Seal(purposeConnections, now.Add(formLife), store.HashOf(e.Cookie(r, sessionCookie))); err != nil {
		return err
	}
	for i, c := range list[:min(len(list), mostClients)] {
		cv := connectionView{
			ClientID: c.ClientID, Host: c.Host, Name: l.nameOf(r.Context(), c.ClientID), ID: fmt.Sprint("app", i+1),
			Since: ago(now.Sub(c.Since)), SinceExact: c.Since.UTC().Format(time.RFC3339),
			Used: ago(now.Sub(c.Used)), UsedExact: c.Used.UTC().Format(time.RFC3339),
		}
		for _, a := range c.Access {
			cv.Access = append(cv.Access, l.accessView(a))
		}
		v.Connections = append(v.Connections, cv)
	}
	return e.Render(w, r, http.StatusOK, web.Page{Title: "My connections", Template: connectionsPage, Data: v})
}

// nameOf returns what a client calls itself, or "".
func (l *Login) nameOf(ctx context.Context, clientID string) string {
	if l.cfg.Clients == nil {
		return ""
	}
	c, err := l.cfg.Clients.Known(ctx, clientID)
	if err != nil {
		return "" // it is still listed, and can be ended
	}
	return c.Name
}

// accessView says what a client may do at a resource in the words of the consent
// page.
func (l *Login) accessView(a Access) accessView {
	v := accessView{Resource: hostOf(a.Resource)}
	var res *policy.Resource
	if l.cfg.Policy != nil {
		res, _ = l.cfg.Policy().Resource(a.Resource)
	}
	if res != nil && res.Name != "" {
		v.Resource = res.Name
	}
	for _, name := range a.Scopes {
		title := name
		if res != nil {
			if sc, ok := res.Scope(name); ok && sc.Title != "" {
				title = sc.Title
			}
		}
		switch name {
		case oauth.ScopeOpenID:
			title = "know who you are"
		case oauth.ScopeOfflineAccess:
			title = "stay connected"
		}
		v.Scopes = append(v.Scopes, title)
	}
	return v
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
