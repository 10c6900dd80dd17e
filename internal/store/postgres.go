package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
)

// Everything that is particular to PostgreSQL stands in this file, in dial.go
// and in migrations/postgres. Several replicas share one database: each of their
// transactions that write first takes one lock, so that there is one writer in
// the cluster at any time, as there is in a file of SQLite. A verb that reads
// before it writes is right on both for the same reason.

// The advisory locks, in the space of the database. writerLock is held by
// whoever writes until the end of its transaction, schemaLock by whoever looks
// at the schema.
const (
	writerLock = 0x626f6e61_66696465 // "bonafide"
	schemaLock = writerLock + 1
)

// How long things may take on PostgreSQL. A replica that hangs or was cut off
// in the middle of a transaction loses it, and with it the writer's lock, before
// the others lose their patience.
const (
	pgConnect = 3 * time.Second  // to connect
	pgIdle    = 3 * time.Second  // between two statements of a transaction
	pgLock    = 5 * time.Second  // for the writer's lock
	pgQuery   = 8 * time.Second  // one statement
	pgBatch   = 12 * time.Second // one transaction, seen from here; also a look-up
)

// pgVersion is the oldest server that is supported.
const pgVersion = 150000

// isPostgres reports whether the configuration names a PostgreSQL database.
func isPostgres(path string) bool {
	return strings.HasPrefix(path, "postgres://") || strings.HasPrefix(path, "postgresql://")
}

// pgConfig reads the address and adds the bounds that it does not name itself.
func pgConfig(address string) (*pgx.ConnConfig, error) {
	c, err := pgx.ParseConfig(address)
	if err != nil {
		// The text of the parser's own error shows the address without its password.
		return nil, fmt.Errorf("read the address of the database: %w", err)
	}
	if c.ConnectTimeout <= 0 || c.ConnectTimeout > pgConnect {
		c.ConnectTimeout = pgConnect
	}
	c.DialFunc = dial
	// A standby shows the past, in which what was revoked or spent is not. None is
	// read, whatever the address asks for: of several hosts the primary is found.
	c.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsPrimary
	for name, value := range map[string]string{
		"application_name":                    "bonafide",
		"statement_timeout":                   millis(pgQuery),
		"lock_timeout":                        millis(pgLock),
		"idle_in_transaction_session_timeout": millis(pgIdle),
		"client_connection_check_interval":    "2000", // a caller that was cut off waits for no lock
		"tcp_keepalives_idle":                 "5",
		"tcp_keepalives_interval":             "2",
		"tcp_keepalives_count":                "3",
		"tcp_user_timeout":                    "10000",
	} {
		if _, given := c.RuntimeParams[name]; !given {
			c.RuntimeParams[name] = value
		}
	}
	return c, nil
}

func millis(d time.Duration) string { return fmt.Sprint(d.Milliseconds()) }

// openPostgres returns the writer's database, with one connection and the newest
// schema, and the readers', whose connections can change nothing.
func openPostgres(ctx context.Context, address string, readers int, log *slog.Logger) (w, r *sql.DB, err error) {
	c, err := pgConfig(address)
	if err != nil {
		return nil, nil, err
	}
	if err := migratePostgres(ctx, *c, log); err != nil {
		return nil, nil, err
	}
	// Durable means durable: a commit is acknowledged when it is on the disk,
	// whatever the database was told to be content with.
	w = sql.OpenDB(&gate{Connector: stdlib.GetConnector(*c, stdlib.OptionAfterConnect(runs(
		`SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'`)))})
	w.SetMaxOpenConns(1)
	w.SetMaxIdleConns(-1) // a connection that the writer drops is closed, with what it had not committed
	r = sql.OpenDB(&gate{Connector: stdlib.GetConnector(*c, stdlib.OptionAfterConnect(runs(`SET default_transaction_read_only = on`)))})
	r.SetMaxOpenConns(readers)
	r.SetMaxIdleConns(readers)
	r.SetConnMaxLifetime(time.Hour)
	if err := r.PingContext(ctx); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("open database for reading: %w", err), closeAll(w, r))
	}
	return w, r, nil
}

// runs returns what is done first on each connection.
func runs(query string) func(context.Context, *pgx.Conn) error {
	return func(ctx context.Context, c *pgx.Conn) error {
		_, err := c.Exec(ctx, query, pgx.QueryExecModeSimpleProtocol)
		if err != nil {
			_ = c.Close(ctx) // err is why
		}
		return err
	}
}

// migratePostgres brings the schema up to what this program knows, one program
// at a time and with no writer at work. It refuses a schema that a newer program
// wrote: its rows may mean something else.
func migratePostgres(ctx context.Context, c pgx.ConnConfig, log *slog.Logger) (err error) {
	c.RuntimeParams = unhurried(c.RuntimeParams)
	db := stdlib.OpenDB(c)
	defer func() { err = errors.Join(err, db.Close()) }()
	conn, err := db.Conn(ctx)
	if err != nil {
		return fmt.Errorf("connect to the database: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }() // the locks go with the connection
	if err := suits(ctx, conn, log); err != nil {
		return err
	}
	if _, err := conn.ExecContext(ctx, `SELECT pg_advisory_lock($1)`, int64(schemaLock)); err != nil {
		return fmt.Errorf("lock the schema: %w", err)
	}
	if err := locksHold(ctx, db); err != nil {
		return err
	}
	files, err := fs.Sub(migrations, "migrations/postgres")
	if err != nil {
		return fmt.Errorf("read migrations: %w", err)
	}
	p, err := goose.NewProvider(goose.DialectPostgres, db, files, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return fmt.Errorf("read migrations: %w", err)
	}
	current, target, err := p.GetVersions(ctx)
	switch {
	case err != nil:
		return fmt.Errorf("migrate database: %w", err)
	case current > target:
		return newer(current, target)
	case current == target:
		return nil
	}
	if _, err := conn.ExecContext(ctx, `SELECT pg_advisory_lock($1)`, int64(writerLock)); err != nil {
		return fmt.Errorf("lock the database: %w", err)
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("migrate database: %w", err)
	}
	return nil
}

// unhurried returns the options of an address for a connection that migrates: it
// may take its time, and finds the tables where the others do. A server still
// notices when the program at its other end is gone, and with it the locks.
func unhurried(options map[string]string) map[string]string {
	options = maps.Clone(options)
	options["application_name"] = "bonafide migration"
	for _, name := range []string{"statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"} {
		options[name] = "0"
	}
	delete(options, "client_connection_check_interval") // a server before version 14, which knows none, is told apart by suits
	return options
}

// suits checks that the server can keep what it is given.
func suits(ctx context.Context, conn *sql.Conn, log *slog.Logger) error {
	var version int
	var encoding, fsync string
	err := conn.QueryRowContext(ctx, `SELECT current_setting('server_version_num')::int, current_setting('server_encoding'), current_setting('fsync')`).
		Scan(&version, &encoding, &fsync)
	switch {
	case err != nil:
		return fmt.Errorf("ask the database for its version: %w", err)
	case version < pgVersion:
		return fmt.Errorf("the server is PostgreSQL %d: version %d or later is needed", version/10000, pgVersion/10000)
	case encoding != "UTF8":
		return fmt.Errorf("the database has the encoding %s: create it with UTF8", encoding)
	case fsync != "on":
		log.Warn("store: the database server runs with fsync off: a crash of its machine can undo what was answered, such as a revocation")
	}
	return nil
}

// locksHold makes sure that the lock that was just taken keeps others out. There
// are databases that speak like PostgreSQL and take advisory locks for nothing,
// and on them two replicas would redeem one code.
func locksHold(ctx context.Context, db *sql.DB) error {
	var got bool
	if err := db.QueryRowContext(ctx, `SELECT pg_try_advisory_lock($1)`, int64(schemaLock)).Scan(&got); err != nil {
		return fmt.Errorf("try the lock of the schema: %w", err)
	}
	if got {
		return errors.New("the advisory locks of this database keep nobody out: it takes PostgreSQL itself, without a pooler in between that shares connections")
	}
	return nil
}

// CheckAddress reports whether the address of a PostgreSQL database can be read.
// Nothing is connected to.
func CheckAddress(address string) error {
	_, err := pgConfig(address)
	return err
}

// pgBegin opens a transaction that writes. The isolation level is named because
// a database can have another default: under it the statements after the lock
// would see the data as it was before the lock was theirs.
var pgBegin = fmt.Sprintf(`BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SELECT pg_advisory_xact_lock(%d)`, int64(writerLock))

// pgCommit does not let statement_timeout cut short the wait for a standby,
// which would pass for success.
const pgCommit = `SET LOCAL statement_timeout = 0; COMMIT`

// control sends statements that steer the transaction, with those that were put
// off until now, in one message. It returns what the server says that the last
// of them did: a transaction that failed answers COMMIT with ROLLBACK.
func (t *tx) control(text string) (did string, err error) {
	if t.before != "" && text != "" {
		text = "; " + text
	}
	text, t.before = t.before+text, ""
	err = t.conn.Raw(func(c any) error {
		results, err := c.(*stdlib.Conn).Conn().PgConn().Exec(t.ctx, text).ReadAll()
		if len(results) > 0 {
			did = results[len(results)-1].CommandTag.String()
		}
		return err
	})
	return did, err
}

// lost reports whether the connection is gone. Only PostgreSQL has one to lose.
func (t *tx) lost() bool {
	if !t.postgres || t.conn == nil {
		return false
	}
	gone := true
	err := t.conn.Raw(func(c any) error {
		gone = c.(*stdlib.Conn).Conn().IsClosed()
		return nil
	})
	return err != nil || gone
}

// SQLSTATE classes and codes (PostgreSQL, appendix A).
const (
	pgSerialization = "40001"
	pgDeadlock      = "40P01"
	pgUnstorable    = "22021" // text that is not UTF-8, or holds a NUL
	pgLockTimeout   = "55P03"
	pgIdleTimeout   = "25P03"
	pgReadOnly      = "25006" // somebody made the database read-only
)

// pgTransient reports whether the server undid the transaction and it may
// succeed when it is run again.
func pgTransient(e *pgconn.PgError) bool {
	return e.Code == pgSerialization || e.Code == pgDeadlock
}

// unstorable reports whether the server was asked for text that it cannot hold.
func unstorable(err error) bool {
	e, ok := errors.AsType[*pgconn.PgError](err)
	return ok && e.Code == pgUnstorable
}

// idledAway reports whether the server ended the transaction because it waited
// for its next statement for too long.
func idledAway(err error) bool {
	e, ok := errors.AsType[*pgconn.PgError](err)
	return ok && e.Code == pgIdleTimeout
}

// unsent reports whether a message of one piece, as a commit is, never left: the
// server had closed the connection before.
func unsent(err error) bool {
	e, ok := errors.AsType[*net.OpError](err)
	return ok && e.Op == "write" && (errors.Is(e, syscall.EPIPE) || errors.Is(e, syscall.ECONNRESET))
}

// pgAway reports whether the server could not do its work: it is going down, out
// of room or connections, or gave up on a statement that took too long.
func pgAway(e *pgconn.PgError) bool {
	switch e.Code {
	case pgLockTimeout, pgIdleTimeout, pgReadOnly:
		return true
	}
	switch e.Code[:min(2, len(e.Code))] {
	case "08", "53", "57", "58": // connection, resources, intervention, system
		return true
	}
	return pgTransient(e)
}
