package cimd_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/textproto"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/bonafide-id/bonafide/cimd"
	"github.com/bonafide-id/bonafide/cimd/cimdtest"
)

// shelf is a Persister in memory.
type shelf struct {
	mu    sync.Mutex
	items map[string][]byte
	fail  error
	loads int
}

func newShelf() *shelf { return &shelf{items: make(map[string][]byte)} }

func (s *shelf) Load(_ context.Context, key string) ([]byte, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.loads++
	v, ok := s.items[key]
	return v, ok, s.fail
}

func (s *shelf) Save(_ context.Context, key string, _ cimd.ID, entry []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return s.fail
	}
	s.items[key] = slices.Clone(entry)
	return nil
}

// TestCacheStories plays testdata/cache/*.txtar. A story is a list of commands:
//
//	serve FILE            the host answers with FILE from now on
//	script FILE FILE      the host answers with these in turn
//	down, up              the host refuses connections, or not
//	pass DURATION         the clock moves
//	resolve WANT          WANT is a client_name, with "stale" after it, or a kind of error
//	refresh WANT          the same for Refresh
//	cached WANT           the same for Cached, where "none" means no answer
//	restart               a new resolver with the same Persister
//	fetches N             so many requests so far
//	asked HEADER VALUE    what the newest request carried
//	events TYPE...        every event since the start or the last check
//	lifetime D CLAMPED    the effective lifetime
//
// A file is a response: the status, headers, an empty line, and the members that
// differ from a good document, or a body that is no JSON object.
func TestCacheStories(t *testing.T) {
	files, err := filepath.Glob("testdata/cache/*.txtar")
	if err != nil || len(files) < 20 {
		t.Fatalf("%d stories, %v", len(files), err)
	}
	for _, file := range files {
		ar, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(strings.TrimSpace(string(ar.Comment)), func(t *testing.T) {
			t.Parallel()
			play(t, ar)
		})
	}
}

type story struct {
	*world
	id    cimd.ID
	files map[string]cimdtest.Response
	shelf *shelf
}

func play(t *testing.T, ar *txtar.Archive) {
	s := &story{id: cimdtest.ID("https://good.test/c.json"), files: map[string]cimdtest.Response{}, shelf: newShelf()}
	s.world = start(t, func(c *cimd.Config) { c.Persist = s.shelf })
	var lines []string
	for _, f := range ar.Files {
		if f.Name == "story" {
			lines = strings.Split(strings.TrimSpace(string(f.Data)), "\n")
			continue
		}
		s.files[f.Name] = readResponse(t, string(f.Data))
	}
	for i, line := range lines {
		cmd, rest, _ := strings.Cut(line, " ")
		if got, want := s.do(t, cmd, rest), rest; got != want {
			t.Fatalf("story line %d: %s: got %q", i+1, line, got)
		}
	}
}

// do runs a command and returns what came out, which is rest if all is well.
func (s *story) do(t *testing.T, cmd, rest string) string {
	switch cmd {
	case "serve", "script":
		var rs []cimdtest.Response
		for name := range strings.FieldsSeq(rest) {
			r, ok := s.files[name]
			if !ok {
				return "no such file"
			}
			rs = append(rs, r)
		}
		s.host.Script("/c.json", rs...)
	case "down", "up":
		s.host.Down(cmd == "down")
	case "pass":
		d, err := time.ParseDuration(rest)
		if err != nil {
			t.Fatal(err)
		}
		s.pass(d)
	case "resolve":
		return told(s.Resolve(t.Context(), s.id))
	case "refresh":
		return told(s.Refresh(t.Context(), s.id))
	case "cached":
		doc, ok := s.Cached(t.Context(), s.id)
		if !ok {
			return "none"
		}
		return told(doc, nil)
	case "restart":
		s.Resolver = s.open(t, func(c *cimd.Config) { c.Persist = s.shelf })
	case "fetches":
		return strconv.Itoa(s.host.Count("/c.json"))
	case "asked":
		name, _, _ := strings.Cut(rest, " ")
		reqs := s.host.Requests()
		return strings.TrimSpace(name + " " + reqs[len(reqs)-1].Header.Get(name))
	case "events":
		return strings.Join(s.seen(), " ")
	case "lifetime":
		st, _ := s.Status(s.id)
		return st.Freshness.Lifetime.String() + " " + st.Freshness.Clamped
	default:
		t.Fatalf("no command %q", cmd)
	}
	return rest
}

func told(doc *cimd.Document, err error) string {
	var e *cimd.Error
	switch {
	case errors.As(err, &e):
		return string(e.Kind)
	case err != nil:
		return err.Error()
	case doc.Stale:
		return doc.Name + " stale"
	}
	return doc.Name
}

func readResponse(t *testing.T, text string) cimdtest.Response {
	t.Helper()
	head, body, _ := strings.Cut(text, "\n\n")
	status, head, _ := strings.Cut(head, "\n")
	n, err := strconv.Atoi(strings.TrimSpace(status))
	if err != nil {
		t.Fatal(err)
	}
	h, err := textproto.NewReader(bufio.NewReader(strings.NewReader(strings.TrimSpace(head) + "\r\n\r\n"))).ReadMIMEHeader()
	if err != nil && strings.TrimSpace(head) != "" {
		t.Fatal(err)
	}
	r := cimdtest.Response{Status: n, Header: http.Header{}}
	if body = strings.TrimSpace(body); body != "" {
		r.Header.Set("Content-Type", "application/json")
		var change map[string]any
		if json.Unmarshal([]byte(body), &change) == nil {
			r = cimdtest.JSON(cimdtest.Document("https://good.test/c.json", change))
			r.Status = n
		} else {
			r.Body = []byte(body)
		}
	}
	maps.Copy(r.Header, http.Header(h))
	return r
}
