package cimd

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/publicsuffix"
)

// The three things that are fetched.
const (
	kindDocument = "document"
	kindJWKS     = "jwks"
	kindLogo     = "logo"
)

// key names an entry by the exact URL (CACHE-10).
type key struct{ kind, url string }

// target is something to fetch on behalf of a client.
type target struct {
	kind, url string
	id        ID
	until     time.Time // of a logo: when its document expires
}

func documentTarget(id ID) target { return target{kind: kindDocument, url: id.String(), id: id} }

func (t target) key() key { return key{t.kind, t.url} }

// String is the key under which a Persister knows the target.
func (t target) String() string { return t.kind + ":" + t.url }

// digest names the target in a fixed size, for memories of strangers' URLs.
func (t target) digest() string { return digestOf([]byte(t.String())) }

// own returns the target with URLs of its own: a client_id may be a small part of
// a large request, which an entry would keep alive.
func (t target) own() target {
	if t.url == t.id.raw {
		t.id.raw = strings.Clone(t.id.raw)
		t.url = t.id.raw
		return t
	}
	t.url, t.id.raw = strings.Clone(t.url), strings.Clone(t.id.raw)
	return t
}

// host returns the host and port a fetch connects to, lower-cased: failures of
// the transport belong to it.
func (t target) host() string {
	u, err := url.Parse(t.url)
	if err != nil {
		return t.url // it will not be fetched
	}
	port := u.Port()
	switch {
	case port != "":
	case u.Scheme == "http":
		port = "80"
	default:
		port = "443"
	}
	return net.JoinHostPort(strings.ToLower(u.Hostname()), port)
}

// site returns who answers for the host: its registrable domain by the public
// suffix list with the private suffixes, so that alice.github.io and
// bob.github.io are two and a.evil.test and b.evil.test are one (DS-02).
func (t target) site() string {
	u, err := url.Parse(t.url)
	if err != nil {
		return t.url
	}
	host := strings.ToLower(u.Hostname())
	if _, err := netip.ParseAddr(host); err == nil {
		return host
	}
	if site, err := publicsuffix.EffectiveTLDPlusOne(host); err == nil {
		return site
	}
	return host
}

// entry is one fetched thing with what is known about it. It is immutable once
// it is in a cache; a change is a new entry.
type entry struct {
	// One of these is set.
	doc  *Document
	keys *fetchedKeys
	png  []byte

	body      []byte      // as received, Raw of a document; nil for a logo
	header    http.Header // the members that decide about caching
	sent      time.Time   // of the newest confirmation, by 200 or 304
	received  time.Time
	fetched   time.Time // when body was received
	changed   time.Time // when body last became different
	attempted time.Time // when the host was last asked, with success or not
	fresh     Freshness

	// withdrawn is why the entry is not served: the host said so (CACHE-15).
	withdrawn *Error
	// known is set when a Persister had the entry: somebody agreed to this client.
	known bool
}

// fetchedKeys is a fetched JWKS, cleaned.
type fetchedKeys struct {
	json json.RawMessage
	kids map[string]bool
}

// maxClockStep is how far the clock may go back without an effect.
const maxClockStep = time.Minute

// fromFuture reports whether the entry was received later than now: the clock was
// set back, and nobody knows how old the entry is (FA-11).
func (e *entry) fromFuture(now time.Time) bool {
	return e.received.After(now.Add(maxClockStep))
}

// usable reports whether the entry can be served without asking its host.
func (e *entry) usable(now time.Time) bool {
	return e.withdrawn == nil && now.Before(e.fresh.Expires) && !e.fromFuture(now)
}

// lastKnownGood reports whether the entry may stand in for a host that failed
// softly, up to grace after its expiry (CACHE-14, RFC 9111 section 4.2.4).
func (e *entry) lastKnownGood(now time.Time, grace time.Duration) bool {
	return e.withdrawn == nil && grace > 0 && !e.fresh.MustRevalidate && !e.fromFuture(now) && now.Before(e.fresh.Expires.Add(grace))
}

// content returns what a change is told about: the document, or the cleaned keys.
func (e *entry) content() []byte {
	switch {
	case e.doc != nil:
		return e.doc.Raw
	case e.keys != nil:
		return e.keys.json
	}
	return e.png
}

// digest returns the SHA-256 of the content, base64url.
func (e *entry) digest() string {
	if e.doc != nil {
		return e.doc.Digest
	}
	sum := sha256.Sum256(e.content())
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// cost estimates the memory of an entry: the body, what was parsed from it, and
// the bookkeeping. Measured on real documents it is a tenth too high.
func (e *entry) cost() int64 {
	n := 2048 + 2*len(e.body) + len(e.png)
	for _, values := range e.header {
		for _, v := range values {
			n += 32 + len(v)
		}
	}
	if e.doc != nil {
		for _, w := range e.doc.Warnings {
			n += 48 + len(w.Member) + len(w.Text)
		}
	}
	if e.keys != nil {
		n += len(e.keys.json)
	}
	return int64(n)
}

// kept are the response headers that are stored: those that decide about reuse
// and those an operator wants to see. No cookie is ever among them.
var kept = []string{
	"Age", "Cache-Control", "Content-Type", "Date", "Etag", "Expires", "Last-Modified", "Pragma", "Vary",
}

const maxKeptHeader = 1024

func keepHeaders(h http.Header) http.Header {
	out := make(http.Header, 4)
	for _, name := range kept {
		if v := h.Values(name); len(v) > 0 {
			for _, s := range v[:min(len(v), 4)] {
				out.Add(name, strings.Clone(s[:min(len(s), maxKeptHeader)]))
			}
		}
	}
	return out
}

// mergeHeaders returns the stored headers updated by those of a 304 (RFC 9111
// section 3.2). Age and Date describe one response only and are not inherited.
func mergeHeaders(stored, fresh http.Header) http.Header {
	out := stored.Clone()
	out.Del("Age")
	out.Del("Date")
	for name, v := range keepHeaders(fresh) {
		if name != "Content-Type" {
			out[name] = v
		}
	}
	return out
}

// validators returns what a conditional request about e carries. A withdrawn
// entry is asked about from scratch.
func (e *entry) validators() (etag, modified string) {
	if e == nil || e.withdrawn != nil {
		return "", ""
	}
	etag, modified = e.header.Get("Etag"), e.header.Get("Last-Modified")
	if len(e.header.Values("Etag")) > 1 || len(etag) >= maxKeptHeader || !visible(etag) {
		etag = ""
	}
	if _, err := http.ParseTime(modified); err != nil {
		modified = ""
	}
	return etag, modified
}

func visible(s string) bool {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] > 0x7e {
			return false
		}
	}
	return true
}

// sameTag compares entity tags weakly (RFC 9110 section 8.8.3.2).
func sameTag(a, b string) bool {
	return strings.TrimPrefix(a, "W/") == strings.TrimPrefix(b, "W/")
}

// seconds writes a duration for people, never as zero.
func seconds(d time.Duration) string {
	return strconv.FormatInt(int64(max(d+time.Second-1, time.Second)/time.Second), 10) + " s"
}
