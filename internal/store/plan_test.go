package store

import (
	"fmt"
	"strings"
	"testing"
)

func TestPlans(t *testing.T) {
	// Every statement that runs on a request or in a sweep finds its rows through
	// an index, whatever the size of the table.
	s := open(t)
	seed(t, s)
	family(t, s, "f")
	ctx := t.Context()
	_, _, _ = s.FindRefresh(ctx, HashOf("f/1"), noon)
	_, _ = s.FindCode(ctx, HashOf("codef"), noon)
	_, _, _ = s.FindSession(ctx, HashOf("session"), noon)
	_, _ = s.GrantActive(ctx, "x")
	_, _ = s.Client(ctx, "x")
	_, _ = s.Document(ctx, "x")
	_, _ = s.Consent(ctx, "u1", "x", "y")
	_, _ = s.TokenDenied(ctx, "x")
	_, _, _ = s.LoadCache(ctx, "x")
	_, _ = s.UserByName(ctx, "x")
	_, _ = s.UserByID(ctx, "x")
	_, _ = s.Users(ctx, "x", 1)
	_, _ = s.Clients(ctx, "x", 1)
	_, _ = s.Documents(ctx, "x", 1)
	_, _ = s.Grants(ctx, "u1", "", 1)
	_, _ = s.Grants(ctx, "", "", 1)
	_, _ = s.Events(ctx, EventQuery{Type: "x"})
	_, _ = s.Events(ctx, EventQuery{Ref: "x"})
	var queries []string
	s.stmts.m.Range(func(q, _ any) bool {
		queries = append(queries, q.(string))
		return true
	})
	if len(queries) < 17 {
		t.Fatalf("only %d statements were prepared", len(queries))
	}
	for _, p := range prunings {
		queries = append(queries, p.query)
	}
	queries = append(queries, rotate)
	db := raw(t, s.path(t))
	for _, q := range queries {
		if strings.Contains(q, "FROM grants g WHERE g.id > $1") || strings.Contains(q, "FROM clients WHERE client_id >") || strings.Contains(q, "FROM users u WHERE u.id >") {
			continue // walks the table in the order of its key, a page at a time
		}
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
			if strings.HasPrefix(detail, "SCAN ") || strings.Contains(detail, "TEMP B-TREE") {
				t.Errorf("%s\n%s", detail, q)
			}
		}
		rows.Close()
	}
}
