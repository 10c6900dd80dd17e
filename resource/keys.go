package resource

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/internal/safehttp"
	"github.com/bonafide-id/bonafide/oauth"
)

const (
	coolDown      = 30 * time.Second // between two fetches that an unknown kid asks for
	firstRetry    = 5 * time.Second  // between attempts while there are no keys at all
	keysFloor     = time.Minute      // limits on the lifetime that the JWKS response states
	keysCeiling   = 24 * time.Hour
	keysDefault   = time.Hour
	keysLastGood  = 24 * time.Hour // expired keys are used this much longer while the issuer is down
	fetchTimeout  = 5 * time.Second
	maxFetchBytes = 256 << 10
)

// errNoKeys reports that the issuer's keys could not be fetched and none are
// left from before.
var errNoKeys = errors.New("no keys of the issuer")

// issuer is one authorization server and its keys. A key of one issuer is never
// tried on a token of another, because each token looks only in its own issuer.
type issuer struct {
	id    string
	plain bool // an http issuer on a loopback address: its keys may be there too
	http  *http.Client
	now   func() time.Time

	current atomic.Pointer[keySet]

	mu        sync.Mutex    // guards the fields below
	flight    chan struct{} // closed when the running fetch ends; nil when none runs
	attempted time.Time     // start of the last fetch
	lastErr   error         // its outcome
}

type keySet struct {
	jose.Set
	expires time.Time
}

func (g *Guard) httpClient() *http.Client {
	var c http.Client
	if g.cfg.HTTP != nil {
		c = *g.cfg.HTTP
	} else {
		c = *safehttp.Trusted(safehttp.TrustedConfig{RootCAs: g.cfg.RootCAs, Timeout: fetchTimeout, MaxBody: maxFetchBytes})
	}
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &c
}

// key returns the issuer's key for a token header. An unknown kid starts at most
// one fetch per cool-down, shared by everyone who waits for it (RS-13). The
// usual path takes no lock and allocates nothing.
func (i *issuer) key(ctx context.Context, kid, alg string) (jose.Key, error) {
	now := i.now()
	set := i.current.Load()
	if set != nil && now.Before(set.expires) {
		if k, err := set.Find(kid, alg); err == nil {
			return k, nil
		}
	}
	if set != nil && !now.Before(set.expires) && i.failing() {
		// The issuer is down: do not make honest callers wait for it.
		if k, err := set.Find(kid, alg); err == nil && now.Before(set.expires.Add(keysLastGood)) {
			i.refresh(ctx, now)
			return k, nil
		}
	}
	if done := i.refresh(ctx, now); done != nil {
		select {
		case <-done:
		case <-ctx.Done():
			return jose.Key{}, errNoKeys
		}
	}
	set = i.current.Load()
	if set == nil || !now.Before(set.expires.Add(keysLastGood)) {
		i.mu.Lock()
		defer i.mu.Unlock()
		return jose.Key{}, fmt.Errorf("%w: %w", errNoKeys, i.lastErr)
	}
	return set.Find(kid, alg)
}

func (i *issuer) failing() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.lastErr != nil
}

// refresh starts a fetch, or joins the running one, and returns a channel that
// is closed at its end; nil when the cool-down forbids a fetch now. The fetch
// does not end with the request that asked for it.
func (i *issuer) refresh(ctx context.Context, now time.Time) <-chan struct{} {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.flight != nil {
		return i.flight
	}
	wait := coolDown
	if i.current.Load() == nil {
		wait = firstRetry
	}
	if !i.attempted.IsZero() && now.Sub(i.attempted) < wait {
		return nil
	}
	done := make(chan struct{})
	i.flight, i.attempted = done, now
	go func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*fetchTimeout)
		defer cancel()
		set, err := i.fetch(ctx)
		i.mu.Lock()
		defer i.mu.Unlock()
		if err == nil {
			i.current.Store(set)
		}
		i.lastErr, i.flight = err, nil
		close(done)
	}()
	return done
}

// fetch reads the issuer's metadata and then its keys.
func (i *issuer) fetch(ctx context.Context) (*keySet, error) {
	jwksURI, err := i.discover(ctx)
	if err != nil {
		return nil, fmt.Errorf("discover keys of %s: %w", i.id, err)
	}
	body, header, err := i.get(ctx, jwksURI)
	if err != nil {
		return nil, fmt.Errorf("fetch keys of %s: %w", i.id, err)
	}
	set, err := jose.ParseRemoteSet(body, jose.SetLimits{MaxBytes: maxFetchBytes, MaxKeys: 64})
	if err != nil {
		return nil, fmt.Errorf("read keys of %s: %w", i.id, err)
	}
	if len(set.Keys) == 0 {
		return nil, fmt.Errorf("read keys of %s: no usable key", i.id)
	}
	return &keySet{Set: set, expires: i.now().Add(lifetime(header))}, nil
}

// discover returns jwks_uri from the issuer's metadata.
func (i *issuer) discover(ctx context.Context) (string, error) {
	m, err := i.metadata(ctx)
	if err != nil {
		return "", err
	}
	return m.JWKSURI, i.endpoint("jwks_uri", m.JWKSURI)
}

// issuerMetadata is what the guard asks of an issuer's metadata.
type issuerMetadata struct {
	Issuer                string `json:"issuer"`
	JWKSURI               string `json:"jwks_uri"`
	IntrospectionEndpoint string `json:"introspection_endpoint"`
}

// metadata reads the issuer's metadata, which must name exactly the issuer that
// was asked (RFC 8414 section 3.3).
func (i *issuer) metadata(ctx context.Context) (m issuerMetadata, err error) {
	places, err := oauth.ServerMetadataURLs(i.id)
	if err != nil {
		return m, err
	}
	var failed error
	for _, place := range places {
		body, _, err := i.get(ctx, place)
		if err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		m = issuerMetadata{}
		if err := json.Unmarshal(body, &m); err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", place, err))
			continue
		}
		if m.Issuer != i.id {
			return m, fmt.Errorf("%s names the issuer %q", place, m.Issuer)
		}
		return m, nil
	}
	return m, failed
}

// endpoint accepts an https URL, or an http one on this computer where the issuer
// is one too.
func (i *issuer) endpoint(what, raw string) error {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || u.Scheme != "https" && !(i.plain && u.Scheme == "http" && loopbackHost(u.Hostname())) {
		return fmt.Errorf("%s has no https %s", i.id, what)
	}
	return nil
}

func (i *issuer) get(ctx context.Context, address string) ([]byte, http.Header, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, nil, err
	}
	req.Header.Set("Accept", "application/json")
	resp, err := i.http.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, nil, fmt.Errorf("%s answered %d", address, resp.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxFetchBytes+1))
	if err == nil && len(body) > maxFetchBytes {
		err = fmt.Errorf("%s is too large", address)
	}
	return body, resp.Header, err
}

// lifetime returns how long fetched keys are fresh: max-age less Age, clamped.
func lifetime(h http.Header) time.Duration {
	life := keysDefault
	for d := range strings.SplitSeq(strings.Join(h.Values("Cache-Control"), ","), ",") {
		name, value, _ := strings.Cut(strings.ToLower(strings.TrimSpace(d)), "=")
		switch name {
		case "no-store", "no-cache":
			return keysFloor
		case "max-age":
			if n, err := strconv.ParseUint(strings.Trim(value, `"`), 10, 31); err == nil {
				life = time.Duration(n) * time.Second
			}
		}
	}
	if n, err := strconv.ParseUint(h.Get("Age"), 10, 31); err == nil {
		life -= time.Duration(n) * time.Second
	}
	return min(max(life, keysFloor), keysCeiling)
}
