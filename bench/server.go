package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime/pprof"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/bonafide-id/bonafide/cimd/cimdtest"
	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/internal/server"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/internal/web"
	"github.com/bonafide-id/bonafide/oauth"
)

// served is what the role "server" says when it is ready.
type served struct {
	Addr  string // the real server
	Floor string // the floors, and the way to move the clock and to prune
	DB    string // path of the database
	seeds
}

// sites is over how many sites the documents of the many clients are spread: a
// budget of fetches is for each.
const sites = 100

// playServer is the role "server": the real server from a real configuration,
// run as the daemon runs it, with a small internet of its own and a clock that
// can be moved; and beside it the floors, with a store of their own. Its arguments
// are a directory and, for PostgreSQL, its address, the key file of the replica
// that was there before ("": there was none), and another address for the floors.
func playServer(args []string) error {
	dir := args[0]
	at := place{dir: dir, listen: "127.0.0.1:0", fetch: "at_once"}
	if len(args) > 1 {
		at.store = args[1]
	}
	if len(args) > 2 {
		at.key = args[2]
	}
	floorAt := filepath.Join(dir, "floor.db")
	if len(args) > 3 {
		floorAt = args[3]
	}
	if path := os.Getenv("BENCH_PROFILE"); path != "" { // for one who wants to know where the time goes
		f, err := os.Create(path + "." + filepath.Base(dir))
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	config, seeded, err := install(ctx, at)
	if err != nil {
		return err
	}
	cfg, err := server.Load(config, false)
	if err != nil {
		return err
	}
	internet, err := cimdtest.Start()
	if err != nil {
		return err
	}
	defer internet.Close()
	if err := seeded.serve(internet); err != nil {
		return err
	}
	for i := range sites {
		publish(internet.Host(site(i)))
	}
	clock := new(clock)
	egress := internet.Egress()
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	s, err := server.New(ctx, cfg, server.Options{Logger: log, Now: clock.now, Egress: &egress})
	if err != nil {
		return err
	}
	defer s.Close()
	ln, err := cfg.Listener(ctx)
	if err != nil {
		return err
	}
	f, err := startFloors(ctx, dir, floorAt, clock, func() int { return len(internet.Dials()) })
	if err != nil {
		return err
	}
	defer f.close()
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, ln, nil) }()
	if err := say(served{ln.Addr().String(), f.addr, cfg.StorePath(), seeded}); err != nil {
		return err
	}
	untilDismissed()
	stop()
	return <-ended
}

// serve publishes the documents of the two clients.
func (s seeds) serve(internet *cimdtest.Net) error {
	docs := map[string]map[string]any{clientHost: nil}
	if s.Key != nil {
		change, err := keyed(s.Key.Key)
		if err != nil {
			return err
		}
		docs["keyed.test"] = change
	}
	for host, change := range docs {
		h := internet.Host(host)
		doc := cimdtest.Document(h.URL("/client.json"), change)
		doc["grant_types"] = []string{oauth.GrantAuthorizationCode, oauth.GrantRefreshToken, oauth.GrantDeviceCode}
		h.ServeJSON("/client.json", doc, "Cache-Control", "max-age=86400")
	}
	return nil
}

// clock is the time, moved ahead.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

func site(i int) string { return "site" + strconv.Itoa(i) + ".test" }

// publish serves a document at every path of a host.
func publish(h *cimdtest.Host) {
	h.Handle("*", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a := cimdtest.JSON(cimdtest.Document(h.URL(r.RequestURI), nil), "Cache-Control", "max-age=86400")
		for name, v := range a.Header {
			w.Header()[name] = v
		}
		_, _ = w.Write(a.Body) // whoever asked may have gone
	}))
}

// floors are the least that the endpoints could be, over the same HTTP server.
type floors struct {
	addr  string
	srv   *http.Server
	store *store.Store
	clock *clock
	key   jose.Private
	dir   string
	dials func() int // connections to document hosts so far
}

func startFloors(ctx context.Context, dir, path string, c *clock, dials func() int) (*floors, error) {
	key, err := jose.Generate(jose.ES256)
	if err != nil {
		return nil, err
	}
	s, err := store.Open(ctx, store.Config{Path: path})
	if err != nil {
		return nil, err
	}
	edge, err := web.NewEdge(web.EdgeConfig{Issuer: issuer})
	if err != nil {
		return nil, err
	}
	f := &floors{store: s, clock: c, key: key, dir: dir, dials: dials}
	mux := http.NewServeMux()
	mux.Handle("/token", edge.API(web.Only(f.token, http.MethodPost)))
	mux.HandleFunc("/bare", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", "/login")
		w.WriteHeader(http.StatusSeeOther)
	})
	mux.HandleFunc("/ahead", f.ahead)
	mux.HandleFunc("/prune", f.prune)
	mux.HandleFunc("/fetches", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, f.dials()) })
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	f.addr, f.srv = ln.Addr().String(), web.NewServer(mux)
	go func() { _ = f.srv.Serve(ln) }() // ends with close
	return f, nil
}

func (f *floors) close() error { return errors.Join(f.srv.Close(), f.store.Close()) }

// token is the floor of a refresh: one form, one ES256 signature, one row
// through the same group-commit writer, one answer.
func (f *floors) token(w http.ResponseWriter, r *http.Request) error {
	p, err := web.ParseBody(r)
	if err != nil {
		return err
	}
	now := time.Now()
	jti := oauth.RandomToken(16)
	signed, err := f.key.Sign(oauth.TypAccessToken, map[string]any{
		"iss": issuer, "sub": "user-1", "client_id": p.Form["client_id"], "aud": protected, "scope": "issues:read issues:write",
		"iat": now.Unix(), "exp": now.Add(10 * time.Minute).Unix(), "jti": jti,
	})
	if err != nil {
		return err
	}
	if err := f.store.SpendID(r.Context(), issuer, store.HashOf(jti), now.Add(time.Hour), now); err != nil {
		return err
	}
	return web.WriteJSON(w, http.StatusOK, map[string]any{
		"access_token": signed, "token_type": "Bearer", "expires_in": 600, "refresh_token": p.Form["refresh_token"], "scope": "issues:read issues:write",
	})
}

// ahead moves the clock of the server.
func (f *floors) ahead(w http.ResponseWriter, r *http.Request) {
	d, err := time.ParseDuration(r.URL.Query().Get("by"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	f.clock.ahead.Add(int64(d))
}

// prune removes what the server would remove within a minute.
func (f *floors) prune(w http.ResponseWriter, r *http.Request) {
	s, err := store.Open(r.Context(), store.Config{Path: filepath.Join(f.dir, "bonafide.db"), Readers: 1})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	now := f.clock.now()
	n, err := s.Prune(r.Context(), now)
	if err == nil {
		_, err = s.ForgetEvents(r.Context(), now.Add(-keptDays*24*time.Hour), now)
	}
	if err = errors.Join(err, s.Close()); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	fmt.Fprintln(w, n)
}

// control asks the floors for something that is not measured.
func (s served) control(ctx context.Context, path string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.Floor+path, http.NoBody)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %d %s", path, resp.StatusCode, body)
	}
	return string(body), err
}

// serve starts the role "server" in a directory of its own.
func (b *bench) serve(ctx context.Context, name string, args ...string) (*child, served, error) {
	return b.serveAs(ctx, "server", name, args...)
}

// serveAs starts a role that serves.
func (b *bench) serveAs(ctx context.Context, role, name string, args ...string) (*child, served, error) {
	var at served
	dir, err := filepath.Abs(filepath.Join(b.dir, name))
	if err != nil {
		return nil, at, err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, at, err
	}
	c, err := b.role(ctx, serverCore, role, append([]string{dir}, args...)...)
	if err != nil {
		return nil, at, err
	}
	err = c.hear(&at)
	return c, at, err
}
