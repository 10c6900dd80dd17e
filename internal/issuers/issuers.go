// Package issuers keeps the public keys of other servers that an operator named,
// such as an identity provider whose assertions are accepted. They come from a
// jwks_uri or from a file. A key set is used for as long as its headers allow,
// and an unknown kid makes it look again, at a bounded rate: a stranger who
// invents key identifiers causes one fetch in half a minute.
package issuers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/bonafide-id/bonafide/internal/jose"
)

const (
	coolDown   = 30 * time.Second // between two looks that an unknown kid asks for
	firstRetry = 5 * time.Second  // between looks while there are no keys at all
	timeout    = 5 * time.Second  // of one look
	floor      = time.Minute      // limits on the lifetime that a response states
	ceiling    = 24 * time.Hour
	standard   = time.Hour // when it states none; also of a file
	lastGood   = time.Hour // expired keys are used this much longer while the issuer is down
	maxBytes   = 256 << 10
	maxKeys    = 64
)

// ErrUnavailable says that the keys could not be read and that none are left from
// before. It is not the sender's fault.
var ErrUnavailable = errors.New("the keys of the issuer cannot be had")

// Config says where the keys of one issuer are: at URL or in File. HTTP is
// required with URL; it must be bounded and follow no redirects, as
// safehttp.Trusted does.
type Config struct {
	URL  string
	File string
	HTTP *http.Client
	Now  func() time.Time // nil is time.Now
}

// Keys are the keys of one issuer. They are safe for concurrent use.
type Keys struct {
	cfg     Config
	current atomic.Pointer[keySet]

	lock      chan struct{} // held by who looks; guards the fields below
	attempted time.Time     // start of the last look
	lastErr   error         // its outcome
}

type keySet struct {
	jose.Set
	expires time.Time
}

// New checks the configuration. A file is read at once, so that a mistake in it
// is found at the start; a URL is not fetched before it is needed.
func New(c Config) (*Keys, error) {
	if (c.URL == "") == (c.File == "") {
		return nil, errors.New("issuers: give a URL or a file")
	}
	if c.URL != "" && c.HTTP == nil {
		return nil, errors.New("issuers: a URL needs a client")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	k := &Keys{cfg: c, lock: make(chan struct{}, 1)}
	if c.File == "" {
		return k, nil
	}
	set, err := k.read(context.Background())
	if err != nil {
		return nil, err
	}
	k.current.Store(set)
	return k, nil
}

// Find returns the key for a token with this kid and alg in its header. The error
// is jose.ErrNoKey or jose.ErrAmbiguous when the issuer has no such key, and
// ErrUnavailable when nobody knows.
func (k *Keys) Find(ctx context.Context, kid, alg string) (jose.Key, error) {
	if key, err := k.fresh(kid, alg); err == nil {
		return key, nil
	}
	select {
	case k.lock <- struct{}{}:
	default:
		// Somebody is looking already. Who has a key from before need not wait.
		if key, err := k.kept(kid, alg); err == nil {
			return key, nil
		}
		select {
		case k.lock <- struct{}{}:
		case <-ctx.Done():
			return jose.Key{}, fmt.Errorf("%w: %w", ErrUnavailable, ctx.Err())
		}
	}
	defer func() { <-k.lock }()
	if key, err := k.fresh(kid, alg); err == nil {
		return key, nil
	}
	k.look(ctx)
	key, err := k.kept(kid, alg)
	if err != nil && k.lastErr != nil { // it may have come with the set that could not be read
		return jose.Key{}, fmt.Errorf("%w: %w", ErrUnavailable, k.lastErr)
	}
	return key, err
}

// fresh finds a key in a set that has not expired.
func (k *Keys) fresh(kid, alg string) (jose.Key, error) {
	set := k.current.Load()
	if set == nil || !k.cfg.Now().Before(set.expires) {
		return jose.Key{}, ErrUnavailable
	}
	return set.Find(kid, alg)
}

// kept finds a key in a set that may have expired a while ago.
func (k *Keys) kept(kid, alg string) (jose.Key, error) {
	set := k.current.Load()
	if set == nil || !k.cfg.Now().Before(set.expires.Add(lastGood)) {
		return jose.Key{}, ErrUnavailable
	}
	return set.Find(kid, alg)
}

// look reads the keys again unless that was tried a moment ago. It does not end
// with the request that asked for it. The caller holds the lock.
func (k *Keys) look(ctx context.Context) {
	wait, now := coolDown, k.cfg.Now()
	if k.current.Load() == nil {
		wait = firstRetry
	}
	if !k.attempted.IsZero() && now.Sub(k.attempted) < wait {
		return
	}
	k.attempted = now
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	defer cancel()
	var set *keySet
	if set, k.lastErr = k.read(ctx); k.lastErr == nil {
		k.current.Store(set)
	}
}

// Err returns why the last look failed, or nil.
func (k *Keys) Err() error {
	k.lock <- struct{}{}
	defer func() { <-k.lock }()
	return k.lastErr
}

func (k *Keys) read(ctx context.Context) (*keySet, error) {
	var body []byte
	var err error
	life := standard
	if k.cfg.File != "" {
		body, err = os.ReadFile(k.cfg.File)
	} else {
		body, life, err = k.fetch(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("read keys: %w", err)
	}
	set, err := jose.ParseRemoteSet(body, jose.SetLimits{MaxBytes: maxBytes, MaxKeys: maxKeys})
	if err != nil {
		return nil, fmt.Errorf("read keys: %w", err)
	}
	if len(set.Keys) == 0 {
		return nil, errors.New("read keys: the set holds no usable key")
	}
	return &keySet{Set: set, expires: k.cfg.Now().Add(life)}, nil
}

func (k *Keys) fetch(ctx context.Context) ([]byte, time.Duration, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, k.cfg.URL, nil)
	if err != nil {
		return nil, 0, err
	}
	req.Header.Set("Accept", "application/jwk-set+json, application/json")
	resp, err := k.cfg.HTTP.Do(req)
	if err != nil {
		return nil, 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, 0, fmt.Errorf("%s answered %d", k.cfg.URL, resp.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBytes+1))
	return body, lifetime(resp.Header), err
}

// lifetime returns how long fetched keys are fresh: max-age, within limits.
func lifetime(h http.Header) time.Duration {
	life := standard
	for d := range strings.SplitSeq(strings.Join(h.Values("Cache-Control"), ","), ",") {
		name, value, _ := strings.Cut(strings.ToLower(strings.TrimSpace(d)), "=")
		switch name {
		case "no-store", "no-cache":
			return floor
		case "max-age":
			if n, err := strconv.ParseUint(strings.Trim(value, `"`), 10, 31); err == nil {
				life = time.Duration(n) * time.Second
			}
		}
	}
	return min(max(life, floor), ceiling)
}
