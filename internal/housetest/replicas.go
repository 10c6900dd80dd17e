package housetest

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/bonafide-id/bonafide/internal/server"
	"github.com/bonafide-id/bonafide/internal/store/pgtest"
	"github.com/bonafide-id/bonafide/internal/store/storetest"
)

// replicas are the servers of a house, on one PostgreSQL where there are several.
type replicas struct {
	address string // of the PostgreSQL database; "" for a file of SQLite
	count   int
	servers []*server.Server
	at      *atomic.Int64 // the replica that all requests go to; in turn when it is negative
	turn    *atomic.Int64
}

// NewReplicas starts a house whose server runs several times on one PostgreSQL
// database. Requests go to each in turn, as behind a load balancer that knows
// nothing of sessions, until At says otherwise.
func NewReplicas(t testing.TB, count int, changes ...string) *House {
	t.Helper()
	return newHouse(t, onPostgres(t, count), changes...)
}

func onPostgres(t testing.TB, count int) replicas {
	t.Helper()
	return replicas{address: pgtest.Database(t, "bonafide", storetest.Migrate), count: count}
}

// everyHouse is what New starts. With BONAFIDE_HOUSE=postgres every house keeps
// its data in PostgreSQL, which runs the whole suite on it; make test does both.
func everyHouse(t testing.TB) replicas {
	t.Helper()
	if os.Getenv("BONAFIDE_HOUSE") == "postgres" {
		return onPostgres(t, 1)
	}
	return replicas{}
}

// At lets every request go to one replica, counted from 0, or to each in turn
// again when i is negative.
func (h *House) At(i int) { h.at.Store(int64(i)) }

// Replica returns one of the servers, counted from 0.
func (h *House) Replica(i int) *server.Server { return h.servers[i] }

// balance hands requests to the servers.
func (h *House) balance() http.Handler {
	h.at, h.turn = &atomic.Int64{}, &atomic.Int64{}
	h.at.Store(-1)
	servers, at, turn := h.servers, h.at, h.turn
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i := at.Load()
		if i < 0 {
			i = turn.Add(1) % int64(len(servers))
		}
		servers[i].Handler().ServeHTTP(w, r)
	})
}

// stored puts the database into a configuration.
func (h *House) stored(text string) string {
	if h.address == "" {
		return text
	}
	return strings.Replace(text, "store: house.db", `store: "`+h.address+`"`, 1)
}

// storePath returns where the database is.
func (h *House) storePath() string {
	if h.address == "" {
		return filepath.Join(h.Dir, "house.db")
	}
	return h.address
}

// kept returns all that is in the database.
func (h *House) kept(t *testing.T) string {
	t.Helper()
	if h.address != "" {
		return pgtest.Dump(t, h.address)
	}
	files, err := filepath.Glob(h.storePath() + "*") // the file and its log
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	var all strings.Builder
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(raw)
	}
	return all.String()
}

// breaksHalfWay lets every change of the end of a grant fail, until it is called
// again.
func (h *House) breaksHalfWay(t *testing.T, breaks bool) {
	t.Helper()
	if h.address != "" {
		query := `DROP TRIGGER half ON grants`
		if breaks {
			query = `CREATE FUNCTION half_way() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'half-way'; END$$;
				CREATE TRIGGER half BEFORE UPDATE OF ended_at ON grants FOR EACH ROW EXECUTE FUNCTION half_way()`
		}
		pgtest.Exec(t, h.address, query)
		return
	}
	query := `DROP TRIGGER half`
	if breaks {
		query = `CREATE TRIGGER half BEFORE UPDATE OF ended_at ON grants BEGIN SELECT RAISE(ABORT, 'half-way'); END`
	}
	if err := storetest.Exec(h.storePath(), query); err != nil {
		t.Fatal(err)
	}
}
