package pgtest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// Dump returns all that a database keeps, table by table: bytes as they are,
// everything else as text.
func Dump(t testing.TB, address string) string {
	t.Helper()
	ctx := t.Context()
	c, err := pgx.Connect(ctx, address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close(context.WithoutCancel(ctx)) }() // all was read, or the test has failed
	rows, err := c.Query(ctx, `SELECT table_name::text FROM information_schema.tables WHERE table_schema = current_schema() ORDER BY 1`)
	if err != nil {
		t.Fatal(err)
	}
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(tables) == 0 {
		t.Fatalf("the tables of the database: %v, %v", tables, err)
	}
	var out strings.Builder
	for _, name := range tables {
		if err := table(ctx, c, name, &out); err != nil {
			t.Fatalf("table %s: %v", name, err)
		}
	}
	return out.String()
}

// table writes the rows of a table.
func table(ctx context.Context, c *pgx.Conn, name string, out *strings.Builder) error {
	rows, err := c.Query(ctx, "SELECT * FROM "+pgx.Identifier{name}.Sanitize())
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		values, err := rows.Values()
		if err != nil {
			return errors.Join(err, rows.Err())
		}
		fmt.Fprint(out, name)
		for _, v := range values {
			if raw, ok := v.([]byte); ok {
				v = string(raw)
			}
			fmt.Fprintf(out, "\t%v", v)
		}
		fmt.Fprintln(out)
	}
	return rows.Err()
}
