package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/cimd"
	"github.com/bonafide-id/bonafide/cimd/cimdtest"
	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/oauth"
	"github.com/bonafide-id/bonafide/resource"
)

// small is what the role "micro" says: series in nanoseconds.
type small struct {
	Cached, Cold, Verify, Proof [2][]float64 // floor, figure
	Allocs                      float64      // of a cached Resolve
}

// micro measures the library calls, alone on a core.
func (b *bench) micro(ctx context.Context) error {
	c, err := b.role(ctx, serverCore, "micro", b.slice.String())
	if err != nil {
		return err
	}
	var s small
	if err := c.hear(&s); err != nil {
		return err
	}
	c.stop()
	of := func(v [2][]float64) series { return series{v[0], [][]float64{v[1]}} }
	b.compare(row{what: "cached Resolve", note: "floor: a lookup in a plain map of the same ids"}, of(s.Cached), 0, "ns", atMost(300, "ns"))
	l := atMost(0, "allocations")
	b.add(row{what: "cached Resolve, allocations", value: number(s.Allocs), target: l.String(), outcome: l.judge(s.Allocs)})
	us := func(v []float64) (out []float64) {
		for _, n := range v {
			out = append(out, n/1e3)
		}
		return out
	}
	cold := of([2][]float64{us(s.Cold[0]), us(s.Cold[1])})
	b.compare(row{what: "cold Resolve", note: "floor: GET of the same document over TLS, connection closed; the host answers from the same core"}, cold, 0, "us", atMost(1.1, ""))
	verify := of([2][]float64{us(s.Verify[0]), us(s.Verify[1])})
	b.compare(row{what: "access token verified by resource", note: "floor: ecdsa.Verify, P-256"}, verify, 0, "us", atMost(1.3, ""))
	proof := of([2][]float64{us(s.Proof[0]), us(s.Proof[1])})
	b.compare(row{what: "DPoP proof verified", note: "floor: ecdsa.Verify, P-256; the figure also reads the key of the proof, checks that it is on the curve, and hashes it and the access token"}, proof, 0, "us", atMost(1.5, ""))
	return nil
}

// playMicro is the role "micro".
func playMicro(args []string) error {
	slice, err := time.ParseDuration(args[0])
	if err != nil {
		return err
	}
	ctx := context.Background()
	var s small
	if err := s.cached(ctx, slice); err != nil {
		return fmt.Errorf("cached: %w", err)
	}
	if err := s.cold(ctx, slice); err != nil {
		return fmt.Errorf("cold: %w", err)
	}
	if err := s.verify(ctx, slice); err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	if err := s.proof(slice); err != nil {
		return fmt.Errorf("proof: %w", err)
	}
	return say(s)
}

// timed returns a turn that measures how long one call takes, in nanoseconds.
func timed(slice time.Duration, do func() error) turn {
	return func() (float64, error) {
		n, batch := 0, 1
		began := time.Now()
		for {
			for range batch {
				if err := do(); err != nil {
					return 0, err
				}
			}
			n += batch
			took := time.Since(began)
			if took >= slice {
				return float64(took) / float64(n), nil
			}
			batch = min(2*batch, max(1, int(float64(slice/20)*float64(n)/float64(took+1)))) // the clock is read about 20 times
		}
	}
}

func pair(floor, figure turn) ([2][]float64, error) {
	s, err := take(rounds, floor, figure)
	if err != nil {
		return [2][]float64{}, err
	}
	return [2][]float64{s.floor, s.figures[0]}, nil
}

// unlimited are budgets for one who measures.
var unlimited = cimd.Budgets{PerSource: cimd.Rate{Every: -1}, PerHost: cimd.Rate{Every: -1}, Global: cimd.Rate{Every: -1}}

func (s *small) cached(ctx context.Context, slice time.Duration) error {
	internet, err := cimdtest.Start()
	if err != nil {
		return err
	}
	defer internet.Close()
	publish(internet.Host("good.test"))
	cfg := internet.Config()
	cfg.Budgets = unlimited
	r, err := cimd.New(cfg)
	if err != nil {
		return err
	}
	defer r.Close()
	const many = 64 // a power of two
	ids, plain := make([]cimd.ID, many), map[cimd.ID]*cimd.Document{}
	for i := range ids {
		ids[i] = cimdtest.ID("https://good.test/" + strconv.Itoa(i) + ".json")
		if plain[ids[i]], err = r.Resolve(ctx, ids[i]); err != nil {
			return err
		}
	}
	i := 0
	resolve := func() error {
		i++
		_, err := r.Resolve(ctx, ids[i%many])
		return err
	}
	s.Allocs = testing.AllocsPerRun(1000, func() { _ = resolve() }) // measured for errors below
	s.Cached, err = pair(timed(slice, func() error {
		i++
		if plain[ids[i%many]] == nil {
			return io.ErrUnexpectedEOF
		}
		return nil
	}), timed(slice, resolve))
	return err
}

func (s *small) cold(ctx context.Context, slice time.Duration) error {
	internet, err := cimdtest.Start()
	if err != nil {
		return err
	}
	defer internet.Close()
	host := internet.Host("good.test")
	publish(host)
	cfg := internet.Config()
	cfg.Budgets = unlimited
	r, err := cimd.New(cfg)
	if err != nil {
		return err
	}
	defer r.Close()
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: internet.RootCAs()},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return internet.Dial(ctx, netip.AddrPortFrom(host.Addr(), 443))
		},
	}}
	n := 0
	next := func() string { n++; return host.URL("/client" + strconv.Itoa(n) + ".json") }
	get := func() error {
		resp, err := client.Get(next())
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		_, err = io.Copy(&bytes.Buffer{}, resp.Body)
		return err
	}
	resolve := func() error {
		_, err := r.Resolve(ctx, cimdtest.ID(next()))
		return err
	}
	for range 20 { // both warm
		if err := get(); err != nil {
			return err
		}
		if err := resolve(); err != nil {
			return err
		}
	}
	s.Cold, err = pair(timed(slice, get), timed(slice, resolve))
	return err
}

func (s *small) verify(ctx context.Context, slice time.Duration) error {
	key, err := jose.Generate(jose.ES256)
	if err != nil {
		return err
	}
	set, err := jose.MarshalSet(key.Public())
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	as := httptest.NewTLSServer(mux)
	defer as.Close()
	mux.HandleFunc("/.well-known/oauth-authorization-server", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q}`, as.URL, as.URL+"/jwks")
	})
	mux.HandleFunc("/jwks", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(set) // whoever asked may have gone
	})
	guard, err := resource.New(resource.Config{Resource: protected, AuthorizationServers: []string{as.URL}, Baseline: []string{"issues:read"}, HTTP: as.Client()})
	if err != nil {
		return err
	}
	now := time.Now()
	token, err := key.Sign(oauth.TypAccessToken, map[string]any{
		"iss": as.URL, "sub": "user-1", "client_id": clientID, "aud": protected, "scope": "issues:read issues:write",
		"iat": now.Unix(), "exp": now.Add(time.Hour).Unix(), "jti": oauth.RandomToken(16), "auth_time": now.Unix(),
	})
	if err != nil {
		return err
	}
	s.Verify, err = versus(slice, token, func() error {
		_, err := guard.Verify(ctx, token)
		return err
	})
	return err
}

// versus lets a figure take turns with the check of one bare signature.
func versus(slice time.Duration, message string, figure func() error) ([2][]float64, error) {
	raw, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return [2][]float64{}, err
	}
	sum := sha256.Sum256([]byte(message))
	x, y, err := ecdsa.Sign(rand.Reader, raw, sum[:])
	if err != nil {
		return [2][]float64{}, err
	}
	return pair(timed(slice, func() error {
		if !ecdsa.Verify(&raw.PublicKey, sum[:], x, y) {
			return io.ErrUnexpectedEOF
		}
		return nil
	}), timed(slice, figure))
}

// proof measures the check of a DPoP proof at a resource, without the memory of
// spent ones.
func (s *small) proof(slice time.Duration) error {
	key, err := jose.Generate(jose.ES256)
	if err != nil {
		return err
	}
	now, token := time.Now(), oauth.RandomToken(300)
	sum := sha256.Sum256([]byte(token))
	proof, err := key.SignProof(map[string]any{
		"jti": oauth.RandomToken(16), "htm": http.MethodPost, "htu": protected, "iat": now.Unix(), "ath": base64.RawURLEncoding.EncodeToString(sum[:]),
	})
	if err != nil {
		return err
	}
	rules := jose.ProofRules{Method: http.MethodPost, URL: protected, Now: now, Past: time.Minute, Future: time.Minute, AccessToken: token}
	s.Proof, err = versus(slice, proof, func() error {
		_, err := jose.ParseProof(proof, rules)
		return err
	})
	return err
}
