package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/oauth"
)

// ask is one request. {n} in path and body is a number that no other request of
// the run has, {token} the refresh token that the worker got last, {uri} the
// request_uri that it got last, {assertion} a fresh assertion of the client's key.
type ask struct {
	Method, Path, Body string
	Want               int // the status that is right; 0 is one of the load's
}

// load is what the role "load" is told on standard input.
type load struct {
	Addr, Host string  // several addresses have a space between them: workers take turns
	Asks       []ask   // taken in turn
	Flow       bool    // each worker asks all of them, one after the other, and that is one
	Signer     *signer // for {assertion}
	Workers    int
	For        time.Duration // how long; or
	Count      int           // how many
	From       int           // the first {n}
	Sources    bool          // each request comes from another address (X-Forwarded-For)
	Want       []int         // the statuses that are right
	Tokens     []string      // for {token}, one a worker
}

// signer makes assertions of a client (private_key_jwt).
type signer struct {
	Key      jose.Private
	ClientID string
}

// MarshalJSON writes the private key as well: it is of this run.
func (s *signer) MarshalJSON() ([]byte, error) {
	key, err := s.Key.MarshalJSON()
	if err != nil {
		return nil, err
	}
	return json.Marshal([]string{string(key), s.ClientID})
}

// UnmarshalJSON implements json.Unmarshaler.
func (s *signer) UnmarshalJSON(raw []byte) error {
	var both [2]string
	err := json.Unmarshal(raw, &both)
	if err == nil {
		s.ClientID = both[1]
		s.Key, err = jose.ParsePrivate([]byte(both[0]))
	}
	return err
}

func (s *signer) assertion() ([]byte, error) {
	now := time.Now().Unix()
	a, err := s.Key.Sign("client-authentication+jwt", map[string]any{
		"iss": s.ClientID, "sub": s.ClientID, "aud": issuer, "jti": oauth.RandomToken(16), "iat": now, "exp": now + 60,
	})
	return []byte(a), err
}

// outcome is what it answers on standard output.
type outcome struct {
	OK, Wrong int
	Took      time.Duration
	P50, P99  time.Duration
	First     string   // the first wrong answer
	Tokens    []string // the last of each worker
	Busy      float64  // share of its core that the server was busy; filled in by drive, as
	Each      float64  // microseconds of the server's core for each answer
}

// rate returns the right answers a second.
func (o outcome) rate() float64 { return float64(o.OK) / o.Took.Seconds() }

// cost is what a server spent in several turns.
type cost struct{ busy, each []float64 }

func (c *cost) add(o outcome) {
	c.busy, c.each = append(c.busy, o.Busy), append(c.each, o.Each)
}

func (c *cost) String() string {
	return fmt.Sprintf("core busy %.0f %%, %.0f us for each", 100*median(c.busy), median(c.each))
}

// drive runs a load against a server, and says how busy the server was.
func (b *bench) drive(ctx context.Context, server *child, l load) (outcome, error) {
	var o outcome
	c, err := b.role(ctx, loadCore, "load")
	if err != nil {
		return o, err
	}
	before, began := server.cpu(), time.Now()
	if err := json.NewEncoder(c.in).Encode(l); err != nil {
		return o, err
	}
	if err := c.hear(&o); err != nil {
		return o, err
	}
	spent := (server.cpu() - before).Seconds()
	o.Busy, o.Each = spent/time.Since(began).Seconds(), 1e6*spent/float64(max(1, o.OK))
	c.stop()
	if o.Wrong > 0 {
		return o, fmt.Errorf("%d of %d answers were wrong, the first: %s", o.Wrong, o.Wrong+o.OK, o.First)
	}
	return o, nil
}

// playLoad is the role "load": a closed loop that does as little as it can.
func playLoad([]string) error {
	var l load
	if err := json.NewDecoder(os.Stdin).Decode(&l); err != nil {
		return err
	}
	g := &generator{load: l, o: outcome{Tokens: slices.Clone(l.Tokens)}}
	g.next.Store(int64(l.From))
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	began := time.Now()
	if l.For > 0 {
		time.AfterFunc(l.For, cancel)
	}
	var all sync.WaitGroup
	for i := range l.Workers {
		all.Go(func() { g.work(ctx, i) })
	}
	all.Wait()
	g.o.Took = time.Since(began)
	slices.Sort(g.took)
	if n := len(g.took); n > 0 {
		g.o.P50, g.o.P99 = g.took[n/2], g.took[n*99/100]
	}
	return say(g.o)
}

type generator struct {
	load
	next atomic.Int64 // the next {n}

	mu   sync.Mutex // guards what follows
	o    outcome
	took []time.Duration
}

// work asks until the time or the count is over.
func (g *generator) work(ctx context.Context, i int) {
	var took []time.Duration
	var token []byte
	if len(g.load.Tokens) > 0 {
		token = []byte(g.load.Tokens[i])
	}
	addresses := strings.Fields(g.Addr)
	wire, err := net.Dial("tcp", addresses[i%len(addresses)])
	if err != nil {
		g.wrong(err.Error())
		return
	}
	defer wire.Close()
	c := &connection{wire, bufio.NewReaderSize(wire, 16<<10)}
	for ctx.Err() == nil {
		n := int(g.next.Add(1)) - 1
		if g.Count > 0 && n >= g.From+g.Count {
			break
		}
		asks := g.Asks
		if !g.Flow {
			asks = asks[n%len(asks):][:1]
		}
		at := time.Now()
		right, err := g.walk(c, asks, n, &token)
		if err != nil {
			g.wrong(err.Error())
			return
		}
		if right {
			took = append(took, time.Since(at))
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.took = append(g.took, took...)
	g.o.OK += len(took)
	if token != nil {
		g.o.Tokens[i] = string(token)
	}
}

// walk asks one after the other. It reports whether all answers were right; an
// error ends the worker.
func (g *generator) walk(c *connection, asks []ask, n int, token *[]byte) (bool, error) {
	var uri []byte
	for _, a := range asks {
		req, err := g.request(a, n, *token, uri)
		if err != nil {
			return false, err
		}
		status, body, err := c.do(req)
		if err != nil {
			return false, err
		}
		if a.Want != 0 && status != a.Want || a.Want == 0 && !slices.Contains(g.Want, status) {
			g.wrong(fmt.Sprintf("%d %s", status, body))
			return false, nil
		}
		if strings.Contains(a.Body, "{token}") {
			if *token = member(body, "refresh_token"); *token == nil {
				return false, errors.New(string(body))
			}
		}
		if u := member(body, "request_uri"); u != nil {
			uri = []byte(url.QueryEscape(string(u)))
		}
	}
	return true, nil
}

func (g *generator) wrong(why string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.o.Wrong++; g.o.Wrong == 1 {
		g.o.First = why[:min(len(why), 300)]
	}
}

// request writes a request.
func (g *generator) request(a ask, n int, token, uri []byte) ([]byte, error) {
	number := strconv.AppendInt(nil, int64(n), 10)
	body := []byte(a.Body)
	if token != nil {
		body = bytes.ReplaceAll(body, []byte("{token}"), token)
	}
	body = bytes.ReplaceAll(body, []byte("{n}"), number)
	if g.Signer != nil && bytes.Contains(body, []byte("{assertion}")) {
		assertion, err := g.Signer.assertion()
		if err != nil {
			return nil, err
		}
		body = bytes.ReplaceAll(body, []byte("{assertion}"), assertion)
	}
	path := bytes.ReplaceAll([]byte(a.Path), []byte("{n}"), number)
	path = bytes.ReplaceAll(path, []byte("{uri}"), uri)
	req := make([]byte, 0, 1024)
	req = append(append(req, a.Method...), ' ')
	req = append(req, path...)
	req = append(append(req, " HTTP/1.1\r\nHost: "...), g.Host...)
	if g.Sources {
		req = fmt.Appendf(req, "\r\nX-Forwarded-For: 11.%d.%d.%d", n>>16&255, n>>8&255, n&255)
	}
	if a.Body != "" {
		req = append(req, "\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: "...)
		req = strconv.AppendInt(req, int64(len(body)), 10)
	}
	return append(append(req, "\r\n\r\n"...), body...), nil
}

// member returns a string of a JSON answer.
func member(body []byte, name string) []byte {
	_, rest, ok := bytes.Cut(body, []byte(`"`+name+`":"`))
	if !ok {
		return nil
	}
	value, _, ok := bytes.Cut(rest, []byte(`"`))
	if !ok {
		return nil
	}
	return bytes.Clone(value)
}

// connection is an HTTP/1.1 connection that is kept.
type connection struct {
	wire net.Conn
	r    *bufio.Reader
}

// do sends a request and reads the answer.
func (c *connection) do(req []byte) (status int, body []byte, err error) {
	if err := c.wire.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return 0, nil, err
	}
	if _, err := c.wire.Write(req); err != nil {
		return 0, nil, err
	}
	line, err := c.r.ReadSlice('\n')
	if err != nil {
		return 0, nil, err
	}
	if len(line) < 12 {
		return 0, nil, errors.New("no status line")
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, nil, err
	}
	length, chunked := 0, false
	for {
		line, err := c.r.ReadSlice('\n')
		if err != nil {
			return 0, nil, err
		}
		name, value, ok := bytes.Cut(bytes.TrimRight(line, "\r\n"), []byte(":"))
		if !ok {
			break // the empty line
		}
		switch {
		case bytes.EqualFold(name, []byte("Content-Length")):
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return 0, nil, err
			}
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			chunked = true
		}
	}
	if chunked {
		body, err = c.chunks()
		return status, body, err
	}
	body = make([]byte, length)
	_, err = io.ReadFull(c.r, body)
	return status, body, err
}

// chunks reads a body that comes in chunks.
func (c *connection) chunks() (body []byte, err error) {
	for {
		line, err := c.r.ReadSlice('\n')
		if err != nil {
			return nil, err
		}
		n, err := strconv.ParseInt(string(bytes.TrimSpace(line)), 16, 32)
		if err != nil {
			return nil, err
		}
		chunk := make([]byte, n+2) // with the line end behind it
		if _, err := io.ReadFull(c.r, chunk); err != nil {
			return nil, err
		}
		if n == 0 {
			return body, nil
		}
		body = append(body, chunk[:n]...)
	}
}
