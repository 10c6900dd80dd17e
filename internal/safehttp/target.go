package safehttp

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// target is a URL that passed the checks which need no network.
type target struct {
	url     *url.URL
	host    string     // without brackets: what the certificate has to name
	literal netip.Addr // the address, if the host is one
	port    uint16
	private bool // one of Rules.Private, byte for byte
	plain   bool // http to this computer, in development
}

// target checks a URL before anything is resolved: https, or http to this very
// computer where the rules say Loopback and there is no proxy; no userinfo and no
// fragment, a host that is a proper DNS name or address, a port that may be
// dialled, and a form that can be sent exactly as it is written.
func (f *Fetcher) target(raw string) (target, error) {
	t, err := f.parse(raw)
	if err != nil {
		return target{}, &Error{KindURL, err}
	}
	return t, nil
}

func (f *Fetcher) parse(raw string) (target, error) {
	// net/url leaves spaces and octets beyond ASCII in a query as they are, and a
	// request line must hold neither (RFC 9112 section 3.2).
	if strings.ContainsFunc(raw, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return target{}, errors.New("URL holds a character that is not written as a percent escape")
	}
	u, err := url.Parse(raw)
	if err != nil {
		return target{}, err
	}
	scheme, standard := "https://", uint16(443)
	plain := f.rules.Loopback && f.rules.Proxy == nil && strings.HasPrefix(raw, "http://") &&
		slices.Contains([]string{"localhost", "127.0.0.1", "::1"}, u.Hostname())
	if plain {
		scheme, standard = "http://", 80
	}
	switch {
	case !strings.HasPrefix(raw, scheme):
		return target{}, errors.New("scheme is not https")
	case u.User != nil:
		return target{}, errors.New("URL has userinfo")
	case strings.Contains(raw, "#"):
		return target{}, errors.New("URL has a fragment")
	}
	// What goes out is Host and RequestURI; it has to be what was asked for.
	if sent := scheme + u.Host + u.RequestURI(); sent != raw && (u.Path != "" || sent != raw+"/") {
		return target{}, errors.New("URL cannot be sent as it is written")
	}
	t := target{url: u, host: u.Hostname(), port: standard, private: f.private[raw] || f.rules.AnyPrivate, plain: plain}
	if rest := u.Host[strings.LastIndexByte(u.Host, ']')+1:]; strings.Contains(rest, ":") {
		n, err := strconv.ParseUint(u.Port(), 10, 16)
		if err != nil || n == 0 || strconv.FormatUint(n, 10) != u.Port() {
			return target{}, errors.New("port is not a number from 1 to 65535")
		}
		t.port = uint16(n)
	}
	if !t.private && !f.rules.Loopback && !slices.Contains(f.rules.Ports, t.port) {
		return target{}, fmt.Errorf("port %d is not allowed", t.port)
	}
	if strings.HasPrefix(u.Host, "[") {
		if t.literal, err = netip.ParseAddr(t.host); err != nil || t.literal.Zone() != "" || !t.literal.Is6() {
			return target{}, errors.New("host is not a proper IPv6 address")
		}
	} else if t.literal, err = netip.ParseAddr(t.host); err != nil {
		t.literal = netip.Addr{}
		err = f.checkName(t)
	}
	if err != nil {
		return target{}, err
	}
	return t, nil
}

// PublicHost returns nil when a host, as it stands in a URL but without brackets
// and port, can be a place on the public Internet: a proper DNS name that is not
// reserved for inner use, or an address that passes the guard. Nothing is looked
// up.
func PublicHost(host string) error {
	f := public()
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	t, err := f.target("https://" + host + "/")
	if err != nil || !t.literal.IsValid() {
		return err
	}
	return f.check(t, t.literal)
}

var public = sync.OnceValue(func() *Fetcher {
	f, err := New(Rules{})
	if err != nil {
		panic(err) // there is nothing in the rules to be wrong
	}
	return f
})

// specialNames have no meaning in the public DNS (RFC 6761 and its registry,
// and ICANN's reservation of internal).
var specialNames = []string{"localhost", "local", "internal", "home.arpa", "onion", "invalid", "alt"}

// checkName accepts a host name as the DNS knows them: letters, digits and
// hyphens, at least two labels, the last one starting with a letter. That rule
// keeps out what resolvers take for an IPv4 address in disguise (2130706433,
// 0x7f000001, 127.1), before any of them sees it.
func (f *Fetcher) checkName(t target) error {
	name := strings.ToLower(t.host)
	if len(name) > 253 {
		return errors.New("host name is too long")
	}
	labels := strings.Split(name, ".")
	for _, l := range labels {
		if len(l) == 0 || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' {
			return errors.New("host is not a proper name")
		}
		for _, c := range []byte(l) {
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
				return errors.New("host is not a proper name")
			}
		}
	}
	if top := labels[len(labels)-1]; top[0] < 'a' {
		return errors.New("host looks like an address but is none")
	}
	if t.private {
		return nil
	}
	if f.rules.Loopback && (name == "localhost" || strings.HasSuffix(name, ".localhost")) {
		return nil
	}
	if len(labels) == 1 {
		return errors.New("host is a single label")
	}
	for _, s := range specialNames {
		if strings.HasSuffix(name, "."+s) {
			return fmt.Errorf("names under %s are not public", s)
		}
	}
	return nil
}
