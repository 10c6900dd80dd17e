package cimd

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"time"

	"github.com/bonafide-id/bonafide/internal/safehttp"
)

// Config says how a [Resolver] behaves. The zero value is a usable production
// setting: strict URLs, public addresses on port 443 only, bounded memory.
type Config struct {
	Profile   Profile   // which text decides where the drafts differ
	URL       URLRules  // the same rules that parsed the IDs; checked again before a fetch
	Supported Supported // what the server can do; documents are intersected with it
	Egress    Egress    // where fetches may go
	Limits    Limits    // sizes, times, memory
	Budgets   Budgets   // how much strangers may make the resolver fetch

	// Admit is asked on every Resolve, Cached, Refresh, Keys and Logo, before any
	// lookup and also when the answer is in memory: a client that is blocked now is
	// refused now. nil admits everybody. An *Error is returned as it is; another
	// error becomes one of KindRefused.
	Admit func(context.Context, ID) error
	// Persist keeps documents and key sets over a restart; nil keeps them in memory only.
	Persist Persister
	// Observe is told about every fetch and its outcome, never about an answer from
	// memory. It is called from the goroutine that fetched and must be quick.
	Observe func(context.Context, Event)
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Disabled, when it reports true, stops all fetching and refuses every client
	// with KindDisabled: the kill switch. nil means never.
	Disabled func() bool
}

// Egress says where fetches may go. It covers the document, its jwks_uri and its
// logo_uri alike (FETCH-06). The zero value allows public addresses on port 443,
// without a proxy, with the certificate authorities of the system.
type Egress struct {
	Ports   []uint16       // allowed ports; nil means 443
	Deny    []netip.Prefix // refused besides the special-use addresses
	Proxy   *url.URL       // an explicit proxy; with one, the proxy decides about addresses (FETCH-16)
	RootCAs *x509.CertPool // nil means those of the system
	Private []string       // exact URLs that may lead to private addresses
	// Loopback allows loopback addresses and any port: for a development server
	// that itself listens on loopback only (FETCH-07).
	Loopback bool
	// Lookup replaces the system's resolver. Its answers are checked like any other.
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)
	// Dial replaces the system's dialer. It is called only with addresses that
	// passed the checks.
	Dial func(ctx context.Context, addr netip.AddrPort) (net.Conn, error)
}

func (e Egress) rules() safehttp.Rules {
	return safehttp.Rules{
		Ports: e.Ports, Deny: e.Deny, Proxy: e.Proxy, RootCAs: e.RootCAs,
		Private: e.Private, Loopback: e.Loopback, Lookup: e.Lookup, Dial: e.Dial,
	}
}

// Limits bound what one fetch and the whole memory may take. A zero value means
// the default named beside it.
type Limits struct {
	DocumentBytes int64 // 5 KiB; at most 64 KiB (FETCH-09, FETCH-10)
	HeaderBytes   int64 // 16 KiB
	JWKSBytes     int64 // 32 KiB
	LogoBytes     int64 // 256 KiB
	LogoPixels    int   // 1024: the greatest width and height of a logo
	// Timeout covers name lookup, connecting, TLS, headers and body together: 5
	// seconds, which is also the most (FETCH-15).
	Timeout   time.Duration
	Freshness FreshnessLimits // 60 s, 24 h, 1 h
	// LastKnownGood is how long after its expiry a document or key set may still
	// be used while its host cannot be reached or answers 5xx or 429: 1 hour, at
	// most 24 hours. A negative value means never. 404, 410 and an invalid document
	// are answers, and no copy is used against them (CACHE-14, CACHE-15).
	LastKnownGood time.Duration
	MemoryBytes   int64 // 48 MiB of heap for documents, key sets and logos together: room for 10,000 typical clients
	MaxEntries    int   // 20,000 documents, and as many key sets
}

// Rate is a budget: Burst at once, and one more every Every. The zero value means
// the default; a negative Every means no limit.
type Rate struct {
	Every time.Duration
	Burst int
}

// Budgets bound the fetches that strangers can cause (FETCH-19). A client that is
// in memory, pinned or known to the Persister never draws on them.
type Budgets struct {
	// PerSource applies to each source named with WithSource: two a second, 60 at once.
	PerSource Rate
	// PerHost applies to each registrable domain by the public suffix list, so that
	// a thousand subdomains share one budget and the neighbours on a shared host
	// such as github.io do not: two a second, 100 at once.
	PerHost Rate
	Global  Rate // all fetches together: 100 a second, 1000 at once
	// InFlight is how many fetches may be under way, a quarter of them reserved for
	// known clients and no more than a quarter for one source: 64. InFlightPerHost is
	// how many may be under way to one registrable domain: 4.
	InFlight, InFlightPerHost int
}

// Persister keeps entries over a restart. The key is "document:" and the
// client_id, or "jwks:" and the URL of the key set. Entries are opaque; a
// response that must not be stored is never handed over, and a damaged entry is
// ignored.
type Persister interface {
	// Load returns the entry of a key. An error is reported to Observe, and the
	// resolver goes on as if there were no entry: everything kept can be fetched again.
	Load(ctx context.Context, key string) (entry []byte, ok bool, err error)
	// Save replaces the entry of a key. The implementation decides which clients it
	// keeps, such as those that somebody agreed to: strangers cause calls too.
	Save(ctx context.Context, key string, clientID ID, entry []byte) error
}

const (
	maxDocumentBytes = 64 << 10
	maxTimeout       = 5 * time.Second
	maxLastKnownGood = 24 * time.Hour
)

func withDefaults(c Config) (Config, error) {
	if !c.Profile.Valid() {
		return c, fmt.Errorf("there is no profile %q", c.Profile)
	}
	l := &c.Limits
	for _, n := range []*int64{&l.DocumentBytes, &l.HeaderBytes, &l.JWKSBytes, &l.LogoBytes, &l.MemoryBytes} {
		if *n < 0 {
			return c, errors.New("a size limit is negative")
		}
	}
	if l.MaxEntries < 0 || l.LogoPixels < 0 || l.Timeout < 0 || c.Budgets.InFlight < 0 || c.Budgets.InFlightPerHost < 0 {
		return c, errors.New("a limit is negative")
	}
	f := l.Freshness
	if f.Floor < 0 || f.Ceiling < 0 || f.Default < 0 || (f.Floor > 0 && f.Ceiling > 0 && f.Floor > f.Ceiling) {
		return c, errors.New("the cache lifetime limits contradict each other")
	}
	setDefault(&l.DocumentBytes, 5<<10)
	setDefault(&l.HeaderBytes, 16<<10)
	setDefault(&l.JWKSBytes, 32<<10)
	setDefault(&l.LogoBytes, 256<<10)
	setDefault(&l.LogoPixels, 1024)
	setDefault(&l.Timeout, maxTimeout)
	setDefault(&l.LastKnownGood, time.Hour)
	setDefault(&l.MemoryBytes, 48<<20)
	setDefault(&l.MaxEntries, 20_000)
	switch {
	case l.DocumentBytes > maxDocumentBytes:
		return c, fmt.Errorf("the document limit is %d bytes; the most is %d", l.DocumentBytes, maxDocumentBytes)
	case l.Timeout > maxTimeout:
		return c, fmt.Errorf("the fetch time limit is %v; the most is %v", l.Timeout, maxTimeout)
	case l.LastKnownGood > maxLastKnownGood:
		return c, fmt.Errorf("the last-known-good time is %v; the most is %v", l.LastKnownGood, maxLastKnownGood)
	}
	b := &c.Budgets
	setRate(&b.PerSource, Rate{500 * time.Millisecond, 60})
	setRate(&b.PerHost, Rate{500 * time.Millisecond, 100})
	setRate(&b.Global, Rate{10 * time.Millisecond, 1000})
	setDefault(&b.InFlight, 64)
	setDefault(&b.InFlightPerHost, 4)
	if c.Now == nil {
		c.Now = time.Now
	}
	return c, nil
}

func setDefault[T int | int64 | time.Duration](v *T, def T) {
	if *v == 0 {
		*v = def
	}
}

func setRate(r *Rate, def Rate) {
	if r.Every == 0 {
		r.Every = def.Every
	}
	if r.Burst <= 0 {
		r.Burst = def.Burst
	}
}
