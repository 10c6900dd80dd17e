package store

import (
	"net/url"
	"strings"
	"testing"

	"github.com/bonafide-id/bonafide/internal/audit"
)

// with returns an address with one more option.
func with(t *testing.T, address, name, value string) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	q.Set(name, value)
	u.RawQuery = strings.ReplaceAll(q.Encode(), "+", "%20") // as libpq reads it
	return u.String()
}

func TestOptionsOfTheAddress(t *testing.T) {
	t.Run("the tables are made in the schema that the address names", func(t *testing.T) {
		address := empty(t)
		c := rawPG(t, address)
		if _, err := c.Exec(t.Context(), `CREATE SCHEMA apart`); err != nil {
			t.Fatal(err)
		}
		for _, option := range [][2]string{{"search_path", "apart"}, {"options", "-c search_path=apart"}} {
			s := openAt(t, with(t, address, option[0], option[1]))
			if err := s.AppendEvents(t.Context(), audit.Event{Type: audit.TypeLogin}); err != nil {
				t.Errorf("%s: %v", option[0], err)
			}
		}
		var here, elsewhere int
		if err := c.QueryRow(t.Context(), `SELECT count(*) FILTER (WHERE schemaname = 'apart'), count(*) FILTER (WHERE schemaname = 'public') FROM pg_tables`).Scan(&here, &elsewhere); err != nil || here < 14 || elsewhere != 0 {
			t.Errorf("%d tables where they belong, %d elsewhere, %v", here, elsewhere, err)
		}
	})
	t.Run("a migration may take its time, and its locks end with the program that holds them", func(t *testing.T) {
		c, err := pgConfig("postgres://h/db?statement_timeout=7&role=app")
		if err != nil {
			t.Fatal(err)
		}
		got := unhurried(c.RuntimeParams)
		for name, want := range map[string]string{
			"statement_timeout": "0", "lock_timeout": "0", "idle_in_transaction_session_timeout": "0", "role": "app",
			"tcp_keepalives_idle": "5", "tcp_keepalives_interval": "2", "tcp_keepalives_count": "3", "tcp_user_timeout": "10000",
		} {
			if got[name] != want {
				t.Errorf("%s: %q", name, got[name])
			}
		}
		if c.RuntimeParams["statement_timeout"] != "7" {
			t.Errorf("the others lost theirs: %v", c.RuntimeParams)
		}
	})
}
