package store

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// statements returns every statement that runs on a request or in a sweep and
// does not walk a table in the order of its key.
func statements(t *testing.T, s *Store) []string {
	t.Helper()
	seed(t, s)
	family(t, s, "f")
	for _, v := range verbs() {
		if err := v.call(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", v.name, err)
		}
	}
	_, _ = s.Grants(t.Context(), "", "", 1)
	_, _ = s.Events(t.Context(), EventQuery{Type: "x"})
	_, _ = s.Events(t.Context(), EventQuery{Ref: "x"})
	var queries []string
	s.stmts.m.Range(func(q, _ any) bool {
		queries = append(queries, q.(string))
		return true
	})
	reads := len(queries)
	err := s.write(t.Context(), func(tx *tx) error {
		for q := range tx.stmts {
			if word, _, _ := strings.Cut(q, " "); slices.Contains([]string{"SELECT", "INSERT", "UPDATE", "DELETE"}, word) {
				queries = append(queries, q)
			}
		}
		return nil
	})
	if err != nil || reads < 23 || len(queries) < reads+60 {
		t.Fatalf("only %d reading and %d writing statements were prepared, %v", reads, len(queries)-reads, err)
	}
	for _, p := range prunings {
		queries = append(queries, p.query)
	}
	queries = append(queries, rotate)
	return slices.DeleteFunc(queries, func(q string) bool { // a page at a time
		return strings.Contains(q, "FROM grants g WHERE g.id > $1") || strings.Contains(q, "FROM clients WHERE client_id >") || strings.Contains(q, "FROM users u WHERE u.id >")
	})
}

// TestPlans: every statement finds its rows through an index, whatever the size of
// the table.
func TestPlans(t *testing.T) {
	s := open(t)
	queries := statements(t, s)
	db := raw(t, s.path(t))
	for _, q := range queries {
		args := make([]any, 0, 8)
		for i := 1; strings.Contains(q, fmt.Sprint("$", i)); i++ {
			args = append(args, 1)
		}
		rows, err := db.Query("EXPLAIN QUERY PLAN "+q, args...)
		if err != nil {
			t.Fatalf("%s: %v", q, err)
		}
		for rows.Next() {
			var a, b, c int
			var detail string
			if err := rows.Scan(&a, &b, &c, &detail); err != nil {
				t.Fatal(err)
			}
			switch detail {
			case "SCAN signing_keys", "SCAN audit_checkpoint", "SCAN live": // a handful of rows; one; what was counted just now
				continue
			case "SCAN audit", "SCAN policies":
				if strings.HasSuffix(q, "ORDER BY seq DESC LIMIT 1") || strings.HasSuffix(q, "ORDER BY revision DESC LIMIT 1") || strings.HasSuffix(q, "ORDER BY seq LIMIT 1") {
					continue // the newest, the oldest
				}
			}
			if strings.HasSuffix(q, ") AS live") && strings.HasPrefix(detail, "SEARCH ") && !strings.Contains(detail, "COVERING INDEX") {
				t.Errorf("a bound is counted in the rows: %s\n%s", detail, q)
			}
			if strings.HasPrefix(detail, "SCAN ") || strings.Contains(detail, "TEMP B-TREE") {
				t.Errorf("%s\n%s", detail, q)
			}
		}
		rows.Close()
	}
}

// TestPlansOnPostgres: with the planner kept from reading whole tables, it finds
// another way for every statement.
func TestPlansOnPostgres(t *testing.T) {
	address := database(t)
	queries := statements(t, openAt(t, address))
	c := rawPG(t, address)
	for _, q := range []string{"SET enable_seqscan = off", "SET plan_cache_mode = force_generic_plan"} {
		if _, err := c.Exec(t.Context(), q); err != nil {
			t.Fatal(err)
		}
	}
	for i, q := range queries {
		if strings.Contains(q, "pg_notify") {
			continue
		}
		name := fmt.Sprint("q", i)
		if _, err := c.Exec(t.Context(), "PREPARE "+name+" AS "+q); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
		var args []string
		for i := 1; strings.Contains(q, fmt.Sprint("$", i)); i++ {
			args = append(args, "NULL")
		}
		call := "EXPLAIN EXECUTE " + name
		if len(args) > 0 {
			call += "(" + strings.Join(args, ", ") + ")"
		}
		rows, err := c.Query(t.Context(), call)
		if err != nil {
			t.Fatalf("%s: %v", q, err)
		}
		plan, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range plan {
			if strings.Contains(line, "Seq Scan on") && !strings.Contains(line, "signing_keys") && !strings.Contains(line, "audit_checkpoint") {
				t.Errorf("%s\n%s", line, q)
			}
		}
	}
}
