package authorize

import (
	"net/url"
	"strings"

	"golang.org/x/net/publicsuffix"

	"github.com/bonafide-id/bonafide/internal/directory"
	"github.com/bonafide-id/bonafide/oauth"
)

// hostView is a host as people read it: the part that somebody had to register,
// and what stands before it. The first is always whole; the second loses its
// left side when it is long, so that "login.bank.example.evil.test" cannot pass
// for a bank (CONS-15). Hosts are shown as A-labels, never decoded.
type hostView struct {
	Cut  string // an ellipsis, or ""
	Sub  string // ends with a dot, or ""
	Main string
	Long bool // smaller letters
	Name bool // no host at all, but a name that an operator gave
}

// How many characters of a host are shown: as the headline, which fits on one
// line of a phone, and in the text. A host that is broken over lines can be read
// as two, so only a registered domain that is longer by itself is broken.
const (
	headlineRoom = 20
	textRoom     = 48
)

func newHostView(host string, room int) hostView {
	host = strings.ToLower(host)
	v := hostView{Main: registrable(host)}
	v.Sub = strings.TrimSuffix(host, v.Main)
	for len(v.Cut)+len(v.Sub)+len(v.Main) > room && v.Sub != "" {
		v.Cut = "…"
		_, v.Sub, _ = strings.Cut(v.Sub, ".")
	}
	if v.Cut != "" {
		v.Cut += "."
	}
	v.Long = len(v.Main) > room
	return v
}

// String returns the host as shown.
func (v hostView) String() string { return v.Cut + v.Sub + v.Main }

// registrable returns the domain that somebody registered, by the public suffix
// list; names on shared hosts such as github.io count as registered. A host that
// has none, such as an address, is its own.
func registrable(host string) string {
	host = strings.ToLower(host)
	if d, err := publicsuffix.EffectiveTLDPlusOne(host); err == nil && !strings.Contains(host, "[") && !strings.Contains(host, ":") {
		return d
	}
	return host
}

// headline is what leads the page: the verified host of a client that has one,
// else the name that an operator gave it.
func headline(c *directory.Client) hostView {
	switch {
	case c.Host != "":
		return newHostView(c.Host, headlineRoom)
	case c.Name != "":
		return hostView{Main: c.Name, Name: true}
	}
	return hostView{Main: c.ID, Name: true}
}

// destination is where the answer goes, in words (CONS-02).
type destination struct {
	Host     hostView
	Port     string // with its colon, or ""
	Computer bool   // this computer
	App      bool   // an app that the system finds by a scheme of its own
}

func newDestination(redirect string) destination {
	u, err := url.Parse(redirect)
	if err != nil || u.Host == "" {
		scheme, _, _ := strings.Cut(redirect, ":")
		return destination{Host: hostView{Main: scheme}, App: true}
	}
	d := destination{Host: newHostView(u.Hostname(), textRoom), Computer: oauth.LoopbackRedirect(redirect)}
	if p := u.Port(); p != "" {
		d.Port = ":" + p
	}
	return d
}

// redirectHost is the host of a redirect URI with its port, for the audit.
func redirectHost(redirect string) string {
	d := newDestination(redirect)
	return d.Host.String() + d.Port
}
